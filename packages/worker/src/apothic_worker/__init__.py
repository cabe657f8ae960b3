"""The Apothic worker: starts and feeds the runners of one machine for a control plane it dials out to."""
