"""What every face is made of: the operation table, requests and responses, the gate in front of each handler."""
