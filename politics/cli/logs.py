"""The log of `politics run`: lines for people, or one JSON object per line."""

import datetime
import enum
import json
import logging

_OF_EVERY_RECORD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}


class LogLevel(enum.StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON: its time, level, logger, pid and message, and the fields of its event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. A traceback is in `error`. What JSON does not have is written as Python shows it."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        line |= {
            name: _plain(value)
            for name, value in vars(record).items()
            if name not in _OF_EVERY_RECORD and name not in line
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=repr)


def _plain(value: object) -> object:
    """Return a value that JSON has, or else its `repr`: a dictionary with other keys than texts, say, or nan."""
    try:
        json.dumps(value, default=repr, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return value


def configure(level: LogLevel, *, as_json: bool) -> None:
    """Log to standard error, from `level` on."""
    handler = logging.StreamHandler()
    lines = logging.Formatter("%(asctime)s %(levelname)s %(process)d %(message)s")
    handler.setFormatter(JSONFormatter() if as_json else lines)
    number = logging.getLevelNamesMapping()[level.name]
    logging.basicConfig(level=number, handlers=[handler])
    logging.getLogger("zeroconf").setLevel(max(number, logging.INFO))  # it has a line for each packet
