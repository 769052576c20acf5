"""The same verbs for a terminal.

Exit codes: 0 done; 1 refused by a gate, or something failed; 2 misuse (the command line, a spec, a setting).
"""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from bnpipe.errors import BnpipeError, SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from bnpipe.config import Settings

Command = Callable[[argparse.Namespace], int]
Add = Callable[[str, Command, str], argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    try:
        command: Command = options.command
        return command(options)
    except SpecError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return error.exit_code
    except BnpipeError as error:
        print(f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bnpipe",
        description="Keep Bayesian networks healthy in production.",
        epilog="BNPIPE_MODELS, BNPIPE_STORE, BNPIPE_DATA, BNPIPE_CONN_<NAME> and MLFLOW_TRACKING_URI set the places.",
    )
    parser.add_argument("--version", action="version", version=f"bnpipe {installed_version('bnpipe')}")
    parser.add_argument("-v", "--verbose", action="store_true", help="show log lines")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        sub.set_defaults(command=command)
        sub.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="show log lines")
        return sub

    _data_commands(add)
    _learning_commands(add)
    _release_commands(add)
    _canary_commands(add)
    _keeping_commands(add)
    _serving_commands(add)
    return parser


def _serving_commands(add: Add) -> None:
    serve = add("serve", _serve, "answer questions over HTTP, by the champions of the registry")
    serve.add_argument("--config", type=Path, metavar="FILE", help="default: config/serving.yaml, if there is one")
    serve.add_argument("--host", help="address to listen on instead of the file's")
    serve.add_argument("--port", type=int, help="0 takes a free one")
    serve.add_argument("--workers", type=int, metavar="N", help="processes that answer")
    serve.add_argument("--new-key", metavar="CLIENT", help="make a key for a caller, print it and what to write down")

    audit = add("audit", _audit, "find a logged answer, ask the version that gave it again, and compare bit for bit")
    audit.epilog = "Ends with 0 if the answer came out the same, 1 if not or if it is not found."
    audit.add_argument("request", metavar="REQUEST_ID", help="or the key that requests came with: the last 20 of a day")
    audit.add_argument("--answers", type=Path, metavar="FOLDER", help="of the log (default: BNPIPE_ANSWERS)")
    audit.add_argument("--evidence", type=Path, metavar="FILE", help="JSON of the rows, where only their hash is kept")


def _audit(options: argparse.Namespace) -> int:
    from bnpipe.config import Settings
    from bnpipe.registry import Registry
    from bnpipe.serving.auditing import audit, tell

    settings = Settings.from_environ()
    folder, registry = options.answers or settings.answers, Registry(settings.tracking_uri)
    findings = audit(options.request, answers=folder, registry=registry, evidence=options.evidence)
    print("\n\n".join("\n".join(tell(finding)) for finding in findings))
    return 0 if all(finding.same for finding in findings) else 1


def _serve(options: argparse.Namespace) -> int:
    from bnpipe.serving.commands import make_key, serve

    if options.new_key is not None:
        return make_key(options.new_key)
    return serve(options.config, host=options.host, port=options.port, workers=options.workers)


def _data_commands(add: Add) -> None:
    check = add("check", _check, "explain every mistake of a spec with its key and line")
    check.add_argument("file", type=Path, nargs="+")
    check.add_argument("--offline", action="store_true", help="do not ask the data source")

    example = add("example", _example, "lay out the rows of an example")
    example.add_argument("name", choices=("flights",))
    example.add_argument("--to", type=Path, help="folder (default: BNPIPE_DATA/NAME)")

    schema = add("schema", _schema, "write the JSON schema of specs")
    schema.add_argument("file", type=Path, nargs="?", help="default: standard output")


def _learning_commands(add: Add) -> None:
    train = add("train", _train, "learn, prove, register and promote a network, in this process")
    train.add_argument("name", help="a network of BNPIPE_MODELS, or the path of a spec")
    train.add_argument("--at", type=date.fromisoformat, metavar="DATE", help="end of the window (default: the newest)")
    train.add_argument("--score", help="bic, aic, bdeu, bds, k2 or ll instead of the spec's")
    train.add_argument("--max-parents", type=int)
    train.add_argument("--estimator", choices=("mle", "bayes"))
    train.add_argument("--equivalent-sample-size", type=float, metavar="ROWS", help="with the estimator bayes")
    train.add_argument("--promotion", choices=("auto", "approval", "manual"))
    train.add_argument("--relearn-schema", action="store_true", help="learn the bins anew")
    train.add_argument("--reason", help="why this run, kept with it")

    drift = add("drift", _drift, "compare live rows with the champion, CPD by CPD, and say what should follow")
    drift.epilog = "Ends with 0 if all is calm, 1 if something changed or the rows are held as bad."
    drift.add_argument("name", help="a network of BNPIPE_MODELS, or the path of a spec")
    drift.add_argument("--from", dest="start", type=date.fromisoformat, metavar="DATE", help="first day to test")
    drift.add_argument("--to", dest="end", type=date.fromisoformat, metavar="DATE", help="day after the last to test")
    drift.add_argument("--act", action="store_true", help="do what is decided: roll back, refit or relearn")
    drift.add_argument("--reason", help="why this look, kept with it")
    drift.add_argument("--json", action="store_true", help="print decision and report as JSON")


def _release_commands(add: Add) -> None:
    promote = add("promote", _promote, "let a version be the champion")
    promote.add_argument("name")
    promote.add_argument("version", type=int)
    promote.add_argument("--reason", required=True)
    promote.add_argument("--force", action="store_true", help="also if it never passed its gates or is barred")

    rollback = add("rollback", _rollback, "let an earlier version be the champion again, and bar the present one")
    rollback.add_argument("name")
    rollback.add_argument("--to", type=int, metavar="VERSION", help="default: the last good champion before")
    rollback.add_argument("--reason", required=True)
    rollback.add_argument("--force", action="store_true", help="also if it never passed its gates or is barred")

    freeze = add("freeze", _freeze, "let nothing but a person move the champion")
    freeze.add_argument("name")
    freeze.add_argument("--reason", help="why; kept with the model")
    freeze.add_argument("--off", action="store_true", help="end it")

    history = add("history", _history, "print who moved the champion, when, and on what evidence")
    history.add_argument("name")
    history.add_argument("--json", action="store_true", help="one JSON object a line")


def _canary_commands(add: Add) -> None:
    canary = add("canary", _canary_status, "let a version answer a part of the requests, and more as it proves itself")
    canary.add_argument("name", help="a network of BNPIPE_MODELS")
    verbs = canary.add_subparsers(required=True, metavar="start|step|halt|status")

    start = verbs.add_parser("start", help="begin with the first stage")
    start.set_defaults(command=_canary_start)
    start.add_argument("version", type=int)
    start.add_argument("--reason", required=True)
    start.add_argument(
        "--shadow", type=float, nargs="?", const=1.0, metavar="SHARE",
        help="first answer this share of the requests (default: all) unheard",
    )  # fmt: skip

    step = verbs.add_parser("step", help="look at what its answers were worth, and act")
    step.set_defaults(command=_canary_step)
    step.add_argument("--answers", type=Path, metavar="FOLDER", help="the log of answers (default: BNPIPE_ANSWERS)")

    halt = verbs.add_parser("halt", help="give every request back to the champion")
    halt.set_defaults(command=_canary_halt)
    halt.add_argument("--reason", required=True)

    verbs.add_parser("status", help="print every stage so far")


def _keeping_commands(add: Add) -> None:
    rebuild = add("rebuild", _rebuild, "learn a version again from its recorded rows and compare the hashes")
    rebuild.add_argument("name")
    rebuild.add_argument("version", type=int)

    reconcile = add("reconcile", _reconcile, "put ledger and alias together again")
    reconcile.add_argument("name", nargs="?")

    sweep = add("gc", _gc, "delete stored rows that no registered version needs")
    sweep.add_argument("--older-than", type=float, default=30.0, metavar="DAYS")
    sweep.add_argument("--delete", action="store_true", help="really delete; without it, only say what would go")

    env = add("env", _env, "write a .env with fresh secrets for docker-compose")
    env.add_argument("file", type=Path, nargs="?", default=Path(".env"))

    demo = add("demo", _demo, "Airflow and MLflow on this machine, retraining a network on real flights")
    demo.add_argument("--once", action="store_true", help="end after the work instead of staying up")
    demo.add_argument("--story", action="store_true", help="go on: drift, two faults, a bad version, a refit")
    demo.add_argument("--record", type=Path, metavar="FILE", help="also write what was measured as Markdown")
    demo.add_argument("--home", type=Path, default=Path(".demo"), help="where it keeps everything")


def _check(options: argparse.Namespace) -> int:
    from bnpipe.config import check_spec

    bad = False
    for file in options.file:
        problems = check_spec(file, online=not options.offline)
        for problem in problems:
            print(problem)
        errors = [problem for problem in problems if problem.severity == "error"]
        bad = bad or bool(errors)
        if not errors:
            print(f"{file}: ok")
    return SpecError.exit_code if bad else 0


def _train(options: argparse.Namespace) -> int:
    from bnpipe.config import Overrides, Settings, load_spec
    from bnpipe.steps import train

    settings = Settings.from_environ()
    path = _spec_path(settings, options.name)
    spec = load_spec(path)
    chosen = ("score", "max_parents", "estimator", "equivalent_sample_size", "promotion", "relearn_schema", "reason")
    overrides = Overrides.of({name: getattr(options, name) for name in chosen})
    now = datetime.now(ZoneInfo(spec.source.time_zone))
    if options.at is not None:
        spec.check_end(options.at, now=now)
    at = options.at or spec.newest(now)
    console = _console()
    training, outcome = train(
        spec=path, at=at, actor=getpass.getuser(), overrides=overrides, around=lambda name: _spinner(console, name)
    )
    _print_training(console, training.run_id, training.key, settings)
    console.print(f"[bold]version {outcome.version}: {outcome.outcome}[/bold], {outcome.reason}")
    if outcome.outcome in ("await approval", "left to MLflow"):
        console.print(f"to promote it: bnpipe promote {spec.name} {outcome.version} --reason …")
    return 0


def _spec_path(settings: Settings, name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    path = settings.models / f"{name}.yaml"
    if not path.exists():
        there = sorted(file.stem for file in settings.models.glob("*.yaml"))
        raise SpecError(f"{path}: there is no such spec; BNPIPE_MODELS holds {', '.join(there) or 'none'}")
    return path


@contextmanager
def _spinner(console: Console, name: str) -> Iterator[None]:
    started = time.perf_counter()
    with console.status(f"{name} …"):
        yield
    console.print(f"  [green]✓[/green] {name:<10} {time.perf_counter() - started:6.1f} s")


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120, stderr=stderr)


def _print_training(console: Console, run_id: str, key: str, settings: Settings) -> None:
    from bnpipe.registry import Registry
    from bnpipe.steps.story import tell_training

    registry = Registry(settings.tracking_uri)
    console.print(f"\ntraining {key[:12]}, MLflow run {registry.run_url(run_id)}")
    tell_training(console, registry, run_id)


def _promote(options: argparse.Namespace) -> int:
    from bnpipe.steps import promote_by_hand

    outcome = promote_by_hand(
        model=options.name,
        version=options.version,
        actor=getpass.getuser(),
        reason=options.reason,
        force=options.force,
    )
    print(f"{options.name} version {outcome.version}: {outcome.outcome}, {outcome.reason}")
    return 0


def _drift(options: argparse.Namespace) -> int:
    from bnpipe.config import Settings, load_spec
    from bnpipe.registry import Registry
    from bnpipe.steps import look, read_look
    from bnpipe.steps.story import tell_look

    settings = Settings.from_environ()
    path = _spec_path(settings, options.name)
    spec = load_spec(path)
    now = datetime.now(ZoneInfo(spec.source.time_zone))
    if options.end is not None:
        spec.check_end(options.end, now=now)
    console = _console(stderr=options.json)
    begun, decision = look(
        spec=path,
        at=spec.newest(now),
        actor=getpass.getuser(),
        start=options.start,
        end=options.end,
        act=options.act,
        reason=options.reason,
        around=lambda name: _spinner(console, name),
    )
    registry = Registry(settings.tracking_uri)
    _, report = read_look(registry, begun.run_id)
    if options.json:
        fields = {"decision": decision.to_dict(), "report": report and report.to_dict(), "run_id": begun.run_id}
        print(json.dumps(fields))
    else:
        tell_look(console, decision, report)
        if options.act:
            done = registry.run_tags(begun.run_id).get("bnpipe.acted", "nothing")
            console.print(f"done: {done}; who is champion now: bnpipe history {spec.name}", soft_wrap=True)
        console.print(f"MLflow run {registry.run_url(begun.run_id)}", soft_wrap=True)
    return 1 if decision.action != "nothing" or decision.alert else 0


def _rollback(options: argparse.Namespace) -> int:
    from bnpipe.steps import rollback

    outcome = rollback(
        model=options.name, to=options.to, actor=getpass.getuser(), reason=options.reason, force=options.force
    )
    print(f"{options.name} version {outcome.version}: {outcome.outcome}, {outcome.reason}")
    return 0


def _freeze(options: argparse.Namespace) -> int:
    from bnpipe.config import Settings
    from bnpipe.errors import SettingsError
    from bnpipe.registry import Registry

    registry = Registry(Settings.from_environ().tracking_uri)
    if options.off:
        registry.thaw(options.name, actor=getpass.getuser())
        print(f"{options.name}: no longer frozen")
        return 0
    if not options.reason:
        raise SettingsError(f"say why {options.name} is frozen: --reason TEXT")
    registry.freeze(options.name, actor=getpass.getuser(), reason=options.reason)
    print(f"{options.name}: frozen, {registry.frozen(options.name)}")
    return 0


def _canary_start(options: argparse.Namespace) -> int:
    from bnpipe.config import Settings, load_spec
    from bnpipe.registry import describe_canary
    from bnpipe.steps.canary import canary_start

    spec = load_spec(_spec_path(Settings.from_environ(), options.name))
    entry = canary_start(spec, options.version, actor=getpass.getuser(), reason=options.reason, shadow=options.shadow)
    print(f"{spec.name}: {describe_canary(entry).strip()}")
    return 0


def _canary_step(options: argparse.Namespace) -> int:
    from bnpipe.config import Settings, load_spec
    from bnpipe.steps.canary import canary_step

    spec = load_spec(_spec_path(Settings.from_environ(), options.name))
    found = canary_step(spec, actor=getpass.getuser(), answers=options.answers)
    print(f"{spec.name}: {found.action}: {found.reason}")
    return 1 if found.action == "halt" else 0


def _canary_halt(options: argparse.Namespace) -> int:
    from bnpipe.registry import describe_canary
    from bnpipe.steps.canary import canary_halt

    entry = canary_halt(options.name, actor=getpass.getuser(), reason=options.reason)
    print(f"{options.name}: {'no canary is running' if entry is None else describe_canary(entry).strip()}")
    return 0


def _canary_status(options: argparse.Namespace) -> int:
    from bnpipe.steps.canary import canary_status

    print("\n".join(canary_status(options.name)) or f"{options.name}: there never was a canary")
    return 0


def _history(options: argparse.Namespace) -> int:
    from bnpipe.config import Settings
    from bnpipe.registry import Registry
    from bnpipe.steps.story import tell_history

    entries = Registry(Settings.from_environ().tracking_uri).history(options.name)
    if options.json:
        for entry in entries:
            print(json.dumps(asdict(entry), default=str))
    elif not entries:
        print(f"{options.name}: the champion was never moved")
    else:
        tell_history(_console(), entries)
    return 0


def _rebuild(options: argparse.Namespace) -> int:
    from bnpipe.steps import rebuild

    with _spinner(_console(), "rebuild"):
        found = rebuild(options.name, options.version)
    print(f"registered {found.registered}\nrebuilt    {found.rebuilt}")
    if found.same:
        print(f"{found.model} {found.version}: the same network, bit for bit")
        return 0
    print(f"{found.model} {found.version}: NOT the same network: {'; '.join(found.differences)}")
    return 1


def _reconcile(options: argparse.Namespace) -> int:
    from bnpipe.registry import describe
    from bnpipe.steps import reconcile

    for found in reconcile(options.name):
        for kind, entries in (("closed", found.closed), ("voided", found.voided), ("moved by hand", found.by_hand)):
            for entry in entries:
                print(f"{entry.model}: {kind}: {describe(entry)}")
    print("ledgers and aliases agree")
    return 0


def _gc(options: argparse.Namespace) -> int:
    from bnpipe.steps import sweep

    swept = sweep(older_than_days=options.older_than, dry_run=not options.delete)
    verb = "deleted" if options.delete else "would delete"
    print(f"{verb} {swept.removed} items, {swept.freed / 1e6:.1f} MB; {swept.kept} stay")
    return 0


def _example(options: argparse.Namespace) -> int:
    from bnpipe.config import Settings
    from bnpipe.examples import flights

    destination = options.to or Settings.from_environ().data / options.name
    with _spinner(_console(), "flights"):
        rows = flights.prepare(destination)
    print(f"{rows} departures in {destination}, one folder a day")
    return 0


def _schema(options: argparse.Namespace) -> int:
    from bnpipe.config import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if options.file is None:
        sys.stdout.write(text)
    else:
        options.file.write_text(text)
    return 0


def _env(options: argparse.Namespace) -> int:
    from bnpipe.demo.secrets import write_env

    write_env(options.file)
    print(f"{options.file}: written, readable only by {getpass.getuser()}; keep it out of git")
    return 0


def _demo(options: argparse.Namespace) -> int:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from bnpipe.demo import run

    return run(home=options.home, once=options.once, story=options.story, console=_console(), record=options.record)


if __name__ == "__main__":
    sys.exit(main())
