"""What leaves the machine when an app is deployed: the files it needs, and it is said which."""

import io
import re
import tarfile

SAMPLE = "examples/hello_world.py"
DECOYS = {
    ".env": "TOKEN=decoy-env",
    ".ssh/id_rsa": "decoy-rsa",
    ".ssh/id_ed25519": "decoy-ed25519",
    ".aws/credentials": "decoy-aws",
    ".config/gcloud/credentials.json": "decoy-gcloud",
    ".netrc": "decoy-netrc",
    "credentials.json": "decoy-json",
    "server.key": "decoy-key",
    "server.pem": "decoy-pem",
    "secrets.py": "PASSWORD = 'decoy-module'",
    "secret_package/__init__.py": "PASSWORD = 'decoy-package'",
    "Documents/taxes.txt": "decoy-taxes",
    "notes.txt": "decoy-notes",
}


def test_a_home_folder_full_of_secrets_uploads_one_file_and_says_so(own_cloud, stranger):
    for name, text in DECOYS.items():
        stranger.write(name, text)
    file = stranger.copy(SAMPLE)
    cloud = own_cloud()
    ran = stranger.python(file).ok()

    assert ran.out.endswith("hello, world\n")
    assert f"1 file, {file.stat().st_size} bytes" in ran.err
    stored = _stored_archives(cloud)
    assert [list(files) for files in stored] == [["hello_world.py"]]
    assert stored[0]["hello_world.py"] == file.read_bytes()
    assert not any(b"decoy" in path.read_bytes() for path in cloud.data.rglob("*") if path.is_file())


def test_an_import_of_a_file_that_looks_like_a_secret_stops_the_deploy(cloud, person):
    person.write("project/pyproject.toml", "")
    person.write("project/parts/__init__.py", "")
    person.write("project/parts/credentials.py", "PASSWORD = 'x'\n")
    file = person.write(
        "project/tidy.py",
        """
        from apothic import App
        from parts import helper
        app = App("tidy")

        @app.function()
        def work():
            return helper.word()
        """,
    )
    person.write("project/parts/helper.py", "def word():\n    return 'helped'\n")
    person.write("project/.env", "TOKEN=decoy")
    person.write("project/unused.py", "x = 1\n")
    deployed = person.apothic("deploy", file, "--json").ok().json

    assert "unused.py" not in str(deployed["files"])
    assert ".env" not in str(deployed["files"])
    assert cloud.outcome(cloud.spawn("tidy", "work"))["result"] == "helped"


def test_a_second_deploy_with_one_changed_file_uploads_that_file_only(cloud, person):
    person.write("big/pyproject.toml", "")
    person.write("big/data.py", f"ROWS = {'many rows ' * 50_000!r}")
    text = """
        import data
        from apothic import App
        app = App("big")

        @app.function()
        def rows():
            return RESULT
        """
    file = person.write("big/big.py", text.replace("RESULT", "len(data.ROWS)"))
    first = person.apothic("deploy", file, "--json").ok().json
    before = cloud.outcome(cloud.spawn("big", "rows"))["result"]
    file = person.write("big/big.py", text.replace("RESULT", "'changed'"))
    second = person.apothic("deploy", file).ok().out
    again = person.apothic("deploy", file, "--json").ok().json
    sent = int(re.search(r"([\d,]+) of the [\d,]+ bytes they are packed into were sent", second)[1].replace(",", ""))

    assert first["uploaded_bytes"] > 500_000
    assert sent < 20_000
    assert "uploads      2 files, " in second or "2 files" in second
    assert (again["uploaded_bytes"], again["is_new"]) == (0, False)
    assert (before, cloud.outcome(cloud.spawn("big", "rows"))["result"]) == (500_000, "changed")


def _stored_archives(cloud):
    """Return the files of each archive that the server keeps."""
    blobs = [path for path in (cloud.data / "blobs").rglob("*") if path.is_file()]
    return [_files(path.read_bytes()) for path in blobs]


def _files(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
