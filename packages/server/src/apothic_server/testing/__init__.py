"""Parts that only tests use: fixtures, the virtual clock, the guarantee marker. Production code never imports this."""
