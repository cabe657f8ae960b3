"""The runtime face: what the SDK, the CLI and workers' archive downloads speak. Text forms of ids live only here."""
