"""An app that is a package: three modules, and packages beside them."""
