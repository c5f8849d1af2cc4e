"""scripts/users.sh: a file of users that the server takes, and nobody else may read."""

import io
import stat

import pytest

from lib.server.login.passwords import hash_of, is_password
from lib.server.login.user import Role
from lib.server.login.users_file import UsersFile, UsersFileError
from scripts.users import main

PASSWORD = "six clicks are enough"


@pytest.fixture
def users(tmp_path, monkeypatch):
    """Run the script on a file, with typed input."""

    def run(*arguments, typed=PASSWORD):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{typed}\n"))
        return main(["--file", str(tmp_path / "folder" / "users"), *arguments])

    run.path = tmp_path / "folder" / "users"
    return run


def test_user_is_added_with_a_hash_and_no_password(users, capsys):
    assert users("add", "anna", "--role", "annotator") == 0

    (account,) = UsersFile(users.path).accounts().values()
    assert (account.name, account.role) == ("anna", Role.ANNOTATOR)
    assert is_password(PASSWORD, account.hashed) and not is_password(PASSWORD + "x", account.hashed)
    assert PASSWORD not in users.path.read_text()
    assert stat.S_IMODE(users.path.stat().st_mode) == 0o600
    assert f"--conf users {users.path}" in capsys.readouterr().out


def test_users_are_changed_listed_and_removed(users, capsys):
    users("add", "anna", "--role", "annotator")
    users("add", "ada", "--role", "admin")
    assert users("role", "anna", "--role", "reviewer") == 0
    assert users("password", "anna", typed="another long password") == 0
    accounts = UsersFile(users.path).accounts()
    assert accounts["anna"].role == Role.REVIEWER
    assert is_password("another long password", accounts["anna"].hashed)
    capsys.readouterr()

    assert users("remove", "ada") == 0
    assert users("list") == 0

    assert capsys.readouterr().out.splitlines()[-1] == "anna: reviewer"


@pytest.mark.parametrize(
    ("arguments", "typed", "sentence"),
    [
        (["add", "anna", "--role", "annotator"], "too short", "has 9 characters; expected at least 12"),
        (["add", "anna", "--role", "annotator"], "ä" * 40, "has 80 bytes; expected at most 72"),
        (["add", "anna", "--role", "boss"], PASSWORD, "The role is 'boss'; expected user, annotator, reviewer, admin"),
        (["add", "an:na", "--role", "user"], PASSWORD, "The name is 'an:na'; expected at most 64 letters"),
        (["add", " anna", "--role", "user"], PASSWORD, "no blank at an end"),
        (["add", "ada", "--role", "user"], PASSWORD, "There is a user 'ada' already"),
        (["role", "anna", "--role", "user"], PASSWORD, "There is no user 'anna'"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_changes_nothing(users, capsys, arguments, typed, sentence):
    users("add", "ada", "--role", "admin")
    before = users.path.read_bytes()

    assert users(*arguments, typed=typed) == 2

    assert sentence in capsys.readouterr().err
    assert users.path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o666])
def test_file_that_others_may_read_or_change_is_refused(users, mode):
    users("add", "anna", "--role", "annotator")
    users.path.chmod(mode)

    with pytest.raises(UsersFileError, match="chmod 600"):
        UsersFile(users.path).accounts()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("anna:annotator", "Line 1 .* is not NAME:ROLE:HASH"),
        ("# a remark\n\nanna:annotator:secret", "Line 3 .* is not NAME:ROLE:HASH"),
        ("anna:boss:{hash}", "The role is 'boss'"),
        ("anna:user:{hash}\nanna:admin:{hash}", "has 'anna' twice"),
        ("an/na:user:{hash}", "The name is 'an/na'"),
    ],
)
def test_file_that_cannot_be_read_is_a_sentence_without_its_secrets(tmp_path, text, sentence):
    hashed = hash_of(PASSWORD)
    (tmp_path / "users").write_text(text.format(hash=hashed))
    (tmp_path / "users").chmod(0o600)

    with pytest.raises(UsersFileError, match=sentence) as refusal:
        UsersFile(tmp_path / "users").accounts()
    assert hashed not in str(refusal.value) and "secret" not in str(refusal.value)


def test_missing_file_names_what_makes_one(tmp_path):
    with pytest.raises(UsersFileError, match="No such file.*scripts/users.sh"):
        UsersFile(tmp_path / "users").accounts()
