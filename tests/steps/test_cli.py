"""The command line: what it prints, and what it ends with."""

from __future__ import annotations

import json

import pytest

from bnpipe.cli import main


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_train_then_history_then_rebuild(clinic, capsys):
    """The main way through: each command ends with 0 and prints what a person looks for."""
    code, out, _ = run(capsys, "train", "clinic", "--at", "2026-03-01", "--reason", "first try")
    assert code == 0
    assert "version 1: promoted" in out
    assert "naive Bayes" in out
    code, out, _ = run(capsys, "history", "clinic", "--json")
    entry = json.loads(out)
    assert (code, entry["to"], entry["outcome"]) == (0, 1, "done")
    code, out, _ = run(capsys, "history", "clinic")
    assert "promotion" in out
    code, out, _ = run(capsys, "rebuild", "clinic", "1")
    assert code == 0
    assert "bit for bit" in out


def test_promote_moves_the_champion(clinic, capsys):
    """`bnpipe promote` moves the alias, and does nothing when it is already there."""
    run(capsys, "train", "clinic", "--at", "2026-03-01", "--promotion", "manual")
    code, out, _ = run(capsys, "promote", "clinic", "1", "--reason", "reviewed")
    assert code == 0
    assert "promoted" in out
    code, out, _ = run(capsys, "promote", "clinic", "1", "--reason", "again")
    assert code == 0
    assert "already champion" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("train", "nothing"), 2, "there is no such spec"),
        (("train", "clinic", "--score", "bogus"), 2, "bogus"),
        (("train", "clinic", "--max-parents", "-1"), 2, "max_parents"),
        (("train", "clinic", "--at", "2026-04-20"), 1, "2026-04-1"),
        (("promote", "clinic", "7", "--reason", "x"), 1, "7"),
        (("rebuild", "clinic", "7"), 1, "7"),
        (("check", "absent.yaml"), 2, "absent.yaml"),
    ],
)
def test_misuse_and_refusals_end_with_their_codes(clinic, capsys, arguments, code, said):
    """1 is refused, 2 is misuse; the message names the thing and no traceback is shown."""
    found, out, err = run(capsys, *arguments)
    assert found == code
    assert said in out + err
    assert "Traceback" not in out + err


def test_gate_ends_with_one(clinic, capsys):
    """A training that an absolute gate stops ends with 1 and the gate's reason."""
    clinic.edit_spec("gates: {min_rows: 200}", "gates: {min_rows: 100000}")
    code, _, err = run(capsys, "train", "clinic", "--at", "2026-03-01")
    assert code == 1
    assert "min_rows" in err
    assert "MLflow run runs:/" in err


def test_reconcile_tells_what_a_hand_did(clinic, capsys):
    """A champion set in MLflow's UI is told by model and version, and once only."""
    from bnpipe.config import Settings
    from bnpipe.registry import Registry

    run(capsys, "train", "clinic", "--at", "2026-03-01", "--promotion", "manual")
    client = Registry(Settings.from_environ().tracking_uri).connection.client
    client.set_registered_model_alias("clinic", "champion", "1")
    code, out, _ = run(capsys, "reconcile")
    assert code == 0
    assert "clinic: moved by hand" in out
    _, out, _ = run(capsys, "reconcile")
    assert out == "ledgers and aliases agree\n"


def test_check_says_ok(clinic, capsys):
    """A sound spec is said to be so."""
    code, out, _ = run(capsys, "check", str(clinic.spec))
    assert code == 0, out
    assert "ok" in out


def test_unknown_command_ends_with_two(capsys):
    """argparse's own misuse code is ours too."""
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])
    assert caught.value.code == 2
