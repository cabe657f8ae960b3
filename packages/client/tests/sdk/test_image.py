"""`Image`: an immutable value whose mistakes are told where they are written."""

import pytest

from apothic import App, Image, InvalidRequestError
from apothic.image import python_here
from apothic.wire.images import environment_id, is_requirement


def test_methods_return_new_images_and_leave_the_old_one():
    base = Image.debian_slim(python_version="3.12")
    more = base.pip_install("numpy>=2", "rich").uv_pip_install("rich", "idna[all] ; python_version < '3.13'")

    assert base.spec.requirements == ()
    assert more.spec.requirements == ("numpy>=2", "rich", "idna[all] ; python_version < '3.13'")
    assert more.spec.python == "3.12"
    assert Image.debian_slim().spec.python == python_here()


def test_equal_images_have_equal_ids_and_variables_need_no_environment_of_their_own():
    one, same = (Image.debian_slim().pip_install("numpy").env(A=1) for _ in range(2))
    other = one.env({"A": 2})

    assert one == same
    assert one.image_id == same.image_id != other.image_id
    assert environment_id(one.spec) == environment_id(other.spec)
    assert environment_id(Image.debian_slim().pip_install("b", "a").spec) == environment_id(
        Image.debian_slim().pip_install("a", "b").spec
    )


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("numpy=2.1", "two equals signs"),
        ("numpy rich", "several"),
        ("", "empty"),
        ("git+https://example.com/x.git", "not from an address"),
        ("thing @ https://example.com/thing.whl", "not from an address"),
        ("./mine", "not from a file"),
        ("mine-1.0-py3-none-any.whl", "not from a file"),
        ("--index-url=https://example.com", "option"),
        ("numpy; ${SECRET}", "write a name"),
        ("num py!", "write a name"),
        ("a\nb", "several"),
        (7, "a text that"),
    ],
)
def test_what_is_no_package_is_refused_with_what_to_write_instead(wrong, advice):
    with pytest.raises(InvalidRequestError, match=advice):
        Image.debian_slim().pip_install(wrong)


@pytest.mark.parametrize(
    "good",
    ["a", "zope.interface", "x[y,z]", "x (>=1, <2)", "x==1.*", "x~=1.0,!=1.3", "x===1.0+local.1", "x>=1;os_name=='a'"],
)
def test_what_people_write_for_packages_is_taken(good):
    assert is_requirement(good)


def test_a_requirements_file_is_read_with_comments_continuations_hashes_and_what_it_includes(tmp_path):
    digest = "a" * 64
    (tmp_path / "more.txt").write_text("rich\n")
    (tmp_path / "requirements.txt").write_text(
        f"# ours\nnumpy>=2  # fast\n\nidna==3.1 \\\n    --hash=sha256:{digest}\n-r more.txt\n"
    )
    image = Image.debian_slim().pip_install_from_requirements(str(tmp_path / "requirements.txt"))

    assert image.spec.requirements == ("numpy>=2", f"idna==3.1 --hash=sha256:{digest}", "rich")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("numpy\n-e .\n", "line 2.*uploaded with the app"),
        ("--extra-index-url https://example.com\n", "line 1.*UV_DEFAULT_INDEX"),
        ("-c limits.txt\n", "write the versions"),
        ("ok\n./folder\n", "line 2.*not from a file"),
        ("-r missing.txt\n", "cannot be read"),
        ("-r requirements.txt\n", "not supported"),
    ],
)
def test_a_line_that_cannot_be_installed_is_named_with_its_number(tmp_path, text, told):
    file = tmp_path / "requirements.txt"
    file.write_text(text)
    with pytest.raises(InvalidRequestError, match=told):
        Image.debian_slim().uv_pip_install_from_requirements(str(file))


def test_a_pyproject_gives_its_dependencies_and_the_groups_that_were_asked_for(tmp_path):
    pytest.importorskip("tomllib")
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\ndependencies = ["numpy"]\n[project.optional-dependencies]\nplot = ["rich>=13"]\n')
    base = Image.debian_slim()

    assert base.pip_install_from_pyproject(str(file)).spec.requirements == ("numpy",)
    both = base.uv_pip_install_from_pyproject(str(file), optional_dependencies="plot")
    assert both.spec.requirements == ("numpy", "rich>=13")
    with pytest.raises(InvalidRequestError, match="it has: plot"):
        base.pip_install_from_pyproject(str(file), optional_dependencies=["docs"])


def test_variables_come_from_arguments_and_files(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# settings\nexport A=1\nB = \"two words\"\nC='$A'\nD=\n")
    image = Image.debian_slim().env({"A": "0"}, FLAG=True, N=2.5).env_file(str(file))

    assert image.spec.variables == {"A": "1", "FLAG": "true", "N": "2.5", "B": "two words", "C": "$A", "D": ""}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda image: image.env({"1A": "x"}), "digit"),
        (lambda image: image.env(APOTHIC_API_KEY="x"), "APOTHIC_"),
        (lambda image: image.env(A=["x"]), "a text, a number"),
        (lambda image: image.env(A="x" * 40_000), "exceed"),
        (lambda image: image.env_file("/nowhere/.env"), "cannot be read"),
        (lambda image: image.workdir("/usr/lib"), "below /app"),
        (lambda image: image.workdir("../up"), "without .."),
        (lambda image: image.apt_install(), "at least one"),
        (lambda image: image.run_commands(["ls"]), "several arguments"),
        (lambda _: Image.debian_slim(python_version="3"), "such as"),
        (lambda _: Image.debian_slim(python_version="3.9"), "3.10"),
        (lambda _: Image.from_registry("a b"), "reference"),
        (lambda _: Image.from_dockerfile("/nowhere/Dockerfile"), "cannot be read"),
        (lambda _: App("a").function(image="python:3.12"), "an Image, such as"),
    ],
)
def test_mistakes_are_refused_where_they_are_made(make, told):
    with pytest.raises(InvalidRequestError, match=told):
        make(Image.debian_slim())


def test_steps_that_need_a_builder_are_recorded_in_words():
    image = Image.from_registry("ubuntu:24.04").apt_install("git", "curl").run_commands("make").command_shell(None)

    assert image.with_dockerfile("RUN true").spec.recorded == (
        "from_registry ubuntu:24.04",
        "apt_install git curl",
        "run_commands make",
        "command_shell default",
        "with_dockerfile (8 characters)",
    )
