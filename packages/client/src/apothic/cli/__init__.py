"""The command line `apothic`: one module per command group, loaded when it is invoked."""
