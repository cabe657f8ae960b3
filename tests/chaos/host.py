"""What a host has of one cloud, kind by kind, so that before and after can be compared (I14)."""

from contextlib import suppress
from pathlib import Path


class Host:
    """Remembers what a cloud made on this machine outside its folder."""

    def __init__(self, cloud):
        self._cloud = cloud
        self._cgroups = set()
        self.before = self.snapshot()

    def look(self):
        """Note what only a running cloud can tell: where its cgroups are."""
        for folder in self._cloud.worker_folders:
            with suppress(OSError):
                self._cgroups |= set((folder / "cgroups").read_text().split())

    def snapshot(self):
        """Return what there is right now."""
        folder = str(self._cloud.folder)
        mounts = Path("/proc/mounts").read_text().splitlines()
        return {
            "process": set(self._cloud.processes()),
            "mount": {line.split()[1] for line in mounts if folder in line.split()[1]},
            "cgroup": {path for path in self._cgroups if Path(path).is_dir()},
            "temporary file": {str(path) for path in (self._cloud.folder / "tmp").iterdir()},
        }
