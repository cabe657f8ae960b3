"""Parts for tests of the worker; production code never imports them."""
