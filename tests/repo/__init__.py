"""Tests of the repository itself: packages, documents, promises and commands."""
