"""The Apothic control plane: faces, services, store and loops behind `apothic up`."""
