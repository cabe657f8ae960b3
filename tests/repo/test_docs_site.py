"""The site of the documentation: built strictly, each page in one list, each public thing in the reference."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import apothic

ROOT = Path(__file__).parents[2]


def build(out: Path, docs: Path = ROOT / "docs") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools/docs.py", "--docs", docs, "--out", out]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    done = build(out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "docs", tmp_path / "docs"))


def test_every_page_is_on_the_site(site: Path):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    expected = {path.with_name("index.html") if path.stem == "README" else path for path in pages}

    built = {path.relative_to(site / "html") for path in (site / "html").rglob("*.html")}

    assert expected | {Path("reference/python.html"), Path("reference/http.html")} == built - {Path("404.html")}


def test_the_python_reference_has_every_public_class_and_method(site: Path):
    headings = set(re.findall(r"^#{3,4} (\S+)$", (site / "pages/reference/python.md").read_text("utf-8"), re.MULTILINE))

    classes = {name for name in apothic.__all__ if isinstance(getattr(apothic, name), type)}
    assert classes <= headings
    assert {
        "App.deploy",
        "App.local_entrypoint",
        "Job.wait",
        "Image.uv_pip_install",
        "ControlPlaneClient.rollback",
    } <= (headings)
    assert not {name for name in headings if "._" in name}


def test_the_http_reference_has_every_operation_with_its_path(site: Path):
    page = (site / "pages/reference/http.md").read_text("utf-8")
    document = json.loads((ROOT / "openapi/runtime.json").read_text("utf-8"))

    operations = {
        f"### {operation['operationId']}\n\n`{method.upper()} {path}`"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    }
    assert {operation for operation in operations if operation not in page} == set()
    assert len(operations) > 30


def test_a_link_that_leads_nowhere_ends_the_build(docs: Path, tmp_path: Path):
    (docs / "glossary.md").write_text("# Glossary\n\n[gone](concepts/gone.md)\n")

    done = build(tmp_path / "out", docs)

    assert done.returncode != 0
    assert "page does not exist" in done.stdout + done.stderr


def test_an_anchor_that_leads_nowhere_ends_the_build(docs: Path, tmp_path: Path):
    (docs / "glossary.md").write_text("# Glossary\n\n[gone](concepts/schedules.md#gone)\n")

    assert build(tmp_path / "out", docs).returncode != 0


def test_a_page_in_no_list_ends_the_build(docs: Path, tmp_path: Path):
    (docs / "guides/forgotten.md").write_text("# Forgotten\n")

    done = build(tmp_path / "out", docs)

    assert (done.returncode, done.stderr) == (
        1,
        "not in exactly one list of a README.md below docs: guides/forgotten.md\n",
    )


def test_a_list_that_names_no_page_ends_the_build(docs: Path, tmp_path: Path):
    with (docs / "guides/README.md").open("a") as index:
        index.write("- [Gone](gone.md): nothing.\n")

    done = build(tmp_path / "out", docs)

    assert (done.returncode, done.stderr) == (1, "a list names gone.md, which is not there\n")
