"""Programs and commands that the pages for users show run, and print what the page says."""

import os

import pytest

from apothic_server.testing.skips import needs

from .pages import ROOT, examples, has_printed, pages
from .people import APOTHIC


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in pages()])
def test_the_examples_of_a_page_run_one_after_the_other(cloud, person, page):
    folder = person.home / page.removesuffix(".md")
    folder.mkdir(parents=True)
    if "curl " in (ROOT / page).read_text("utf-8"):
        needs("curl", package="curl")
    environment = {"PATH": f"{APOTHIC.parent}{os.pathsep}{os.environ['PATH']}", "APOTHIC_QUIET": "1"}

    for example in examples((ROOT / page).read_text("utf-8")):
        command = ["sh", "-ec", example.text]
        if example.language == "python":
            (folder / example.file).write_text(example.text, "utf-8")
            command = ["python", example.file]
        ran = person.run(*command, cwd=folder, env=environment)

        told = f"{page}:{example.line}\n{ran.out}\n{ran.err}"
        assert ran.status == example.status, told
        assert example.prints is None or has_printed(ran.out, example.prints), told


def test_a_page_tells_programs_commands_and_what_they_print_apart():
    text = (
        "<!-- example: a.py -->\n```python\nprint(1)\n```\n\n<!-- prints -->\n```text\n1\n```\n\n"
        "```json\n{}\n```\n\n<!-- example, exits 2 -->\n```sh\nfalse\n```\n"
    )

    first, second = examples(text)

    assert (first.language, first.file, first.text, first.prints) == ("python", "a.py", "print(1)\n", "1\n")
    assert (second.language, second.status, second.prints, second.line) == ("sh", 2, None, 15)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n",
        "```sh\ntrue\n```\n",
        "<!-- example -->\n```python\nprint(1)\n```\n",
        "<!-- example: a.json -->\n```json\n{}\n```\n",
        "<!-- prints -->\n```text\n1\n```\n",
    ],
)
def test_an_example_that_nobody_would_run_is_refused(text):
    with pytest.raises(ValueError, match="line 1"):
        examples(text)


def test_output_is_compared_whole_except_where_the_page_leaves_it_open():
    assert has_printed("jobs:01 is done\n", "jobs:… is done")
    assert not has_printed("jobs:01 is done\nand more\n", "jobs:… is done")
    assert not has_printed("a+b\n", "aab")
    assert has_printed("a \n b\n", "a\n b")
