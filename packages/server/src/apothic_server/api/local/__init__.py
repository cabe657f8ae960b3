"""What processes on the server's own machine reach without the network."""
