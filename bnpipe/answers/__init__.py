"""The log of answers: who asked what of which version, and what it said, so that it can be found and made again.

Workers write journals (`journal`), a record before its answer leaves; closed journals become Parquet (`compaction`), a
file for each model and day; both are read together (`reading`), and an answer is asked for again (`reproduction`).

::

    FOLDER/journal/*.log                                  what no compaction has taken yet
    FOLDER/answers/model=NAME/day=YYYY-MM-DD/*.parquet    a line for each row answered
    FOLDER/shadow/model=NAME/day=YYYY-MM-DD/*.parquet     the same of answers that were compared and not returned
    FOLDER/feedback/model=NAME/day=YYYY-MM-DD/*.parquet   labels that came later
    FOLDER/aside/*.log                                    journals with an end or a record that could not be read

Names are loaded when first used (PEP 562): who writes journals needs neither pandas nor Arrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bnpipe.lazy import loader

if TYPE_CHECKING:
    from bnpipe.answers.columns import SchemaOf
    from bnpipe.answers.compaction import Compaction, compact
    from bnpipe.answers.journal import Journal, JournalContents, read_journal
    from bnpipe.answers.reading import find, find_by_key, labelled, rows
    from bnpipe.answers.records import AnswerRecord, FeedbackRecord, Record, evidence_hash, new_request_id
    from bnpipe.answers.reproduction import Reproduction, reproduce

__all__ = [
    "AnswerRecord",
    "Compaction",
    "FeedbackRecord",
    "Journal",
    "JournalContents",
    "Record",
    "Reproduction",
    "SchemaOf",
    "compact",
    "evidence_hash",
    "find",
    "find_by_key",
    "labelled",
    "new_request_id",
    "read_journal",
    "reproduce",
    "rows",
]

_HOME: Final[dict[str, str]] = {
    "AnswerRecord": "records",
    "Compaction": "compaction",
    "FeedbackRecord": "records",
    "Journal": "journal",
    "JournalContents": "journal",
    "Record": "records",
    "Reproduction": "reproduction",
    "SchemaOf": "columns",
    "compact": "compaction",
    "evidence_hash": "records",
    "find": "reading",
    "find_by_key": "reading",
    "labelled": "reading",
    "new_request_id": "records",
    "read_journal": "journal",
    "reproduce": "reproduction",
    "rows": "reading",
}

__getattr__ = loader(__name__, _HOME)
