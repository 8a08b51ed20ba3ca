"""The file: one SQLite database, one process that writes it, any number that read it.

What is committed survives the death of the process (WAL, synchronous=NORMAL); with `durable`, also a power cut (FULL).
WAL needs shared memory, which network file systems lack: there the rollback journal is used.

The writer holds a POSIX lock on a file beside the database, PATH.lock. The kernel releases it the moment the process
dies, however it dies, so a dead owner's store is taken over at once; the row in `owner` says who it was. Locks of this
kind are not inherited by children.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flyweight.errors import ConfigError, FlyweightError, StoreError

__all__ = ["FAILURES", "Batch", "Database", "Lock", "network_file_system"]

APPLICATION = 0x464C5957
"""SQLite's application id: what tells a store from any other database."""
VERSION = 1
"""Of the schema below, kept in user_version."""
SCHEMA = """
CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), pid INTEGER NOT NULL, boot TEXT NOT NULL,
    host TEXT NOT NULL, since REAL NOT NULL, heartbeat REAL NOT NULL) STRICT;
CREATE TABLE models (id INTEGER PRIMARY KEY, model TEXT NOT NULL UNIQUE, name TEXT NOT NULL, params INTEGER NOT NULL,
    boundary TEXT NOT NULL, mark BLOB NOT NULL) STRICT;
CREATE TABLE contents (id INTEGER PRIMARY KEY, sum BLOB NOT NULL UNIQUE, text BLOB NOT NULL, tokens BLOB NOT NULL,
    logprobs BLOB NOT NULL, certainty BLOB NOT NULL) STRICT;
CREATE TABLE units (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, moment INTEGER NOT NULL,
    label TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    generated_tokens INTEGER NOT NULL, content BLOB NOT NULL, numbers BLOB NOT NULL, mark BLOB NOT NULL) STRICT;
CREATE TABLE runs (id INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, configuration TEXT NOT NULL, models TEXT NOT NULL,
    versions TEXT NOT NULL, started REAL NOT NULL, finished REAL, problems INTEGER, mark BLOB NOT NULL) STRICT;
CREATE TABLE searches (id INTEGER PRIMARY KEY, run TEXT NOT NULL, problem BLOB NOT NULL, stopped TEXT NOT NULL,
    record BLOB NOT NULL, mark BLOB NOT NULL, UNIQUE (run, problem)) STRICT;
"""
MIGRATIONS: Mapping[int, str] = {}
"""Schema version -> the script that turns it into the next one."""
NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
"""File systems on which a memory-mapped index shared between machines cannot work."""
MOUNTS = Path("/proc/self/mounts")
BUSY_SECONDS = 5.0
"""How long a commit waits for a reader (rollback journal) or for somebody's sqlite3 shell."""

Batch = tuple[str, Sequence[Sequence[object]]]
"""A statement, and the parameters of every time it is executed."""

FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; the second when the message itself quotes garbled text."""

_written: set[tuple[int, int]] = set()
"""Lock files this process holds: POSIX locks do not exclude their own process."""


class Lock:
    """The right to write a store, held until released or until the process ends."""

    def __init__(self, path: Path, owner: Callable[[], str] = lambda: "another process") -> None:
        """Take the lock, or raise ConfigError naming who has it."""
        beside = path.with_name(path.name + ".lock")
        with suppress(FileNotFoundError):
            # Opening the file a second time would release the lock as soon as that copy is closed.
            if _identity(os.stat(beside)) in _written:
                raise ConfigError(f"{path} is already open for writing in this process")
        try:
            lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror} ({beside})") from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ConfigError(
                    f"{path} is being written by {owner()}: wait for it, or read with readonly=True"
                ) from error
            raise StoreError(f"cannot lock {beside}: {error.strerror}; keep the store elsewhere") from error
        self._file = lock
        _written.add(_identity(os.fstat(lock)))

    def release(self) -> None:
        """Let the next writer in."""
        _written.discard(_identity(os.fstat(self._file)))
        os.close(self._file)


class Database:
    """A store's connection. Every failure is a StoreError, and kept in `error`."""

    def __init__(self, path: Path, *, durable: bool = False, readonly: bool = False) -> None:
        """Open, create or migrate. ConfigError if another process writes it, or if it is no store of ours."""
        self.path = path
        self.readonly = readonly
        self.error: StoreError | None = None
        """The first failure to read or write, if there was one; nothing is written afterwards."""
        self.backup: Path | None = None
        """Where the store was copied before it was migrated."""
        self.took_over = False
        """Whether the last owner died without closing."""
        self._pid = os.getpid()
        self._signed = False
        self._lock: Lock | None = None
        self._connection: sqlite3.Connection | None = None
        if not path.parent.is_dir():
            raise StoreError(f"cannot open {path}: the folder {path.parent} does not exist")
        if readonly and not path.is_file():
            raise StoreError(f"cannot read {path}: no such file")
        try:
            if not readonly:
                self._lock = Lock(path, self._owner)
            self._open(durable)
        except FAILURES as error:
            self.close()
            raise self._explained(error, "open") from error
        except FlyweightError:
            self.close()
            raise
        self._inode = os.stat(path).st_ino

    # Reading and writing -------------------------------------------------------------------------------------

    def write(self, batches: Iterable[Batch]) -> None:
        """Execute all of it in one transaction, or nothing, also if making the batches raises."""
        if self.readonly:
            raise ConfigError(f"{self.path} was opened for reading only")
        if self.error is not None:
            raise self.error
        try:
            self._still_there()
            connection = self.connection
            connection.execute("BEGIN IMMEDIATE")
            for statement, rows in batches:
                connection.executemany(statement, rows)
            connection.execute("UPDATE owner SET heartbeat = ?", (time.time(),))
            connection.execute("COMMIT")
        except FAILURES as error:
            self.error = self._explained(error, "write")
            with suppress(*FAILURES):
                self.connection.execute("ROLLBACK")
            raise self.error from error
        except BaseException:  # raised by whoever made the batches: half of them is nothing
            with suppress(*FAILURES):
                self.connection.execute("ROLLBACK")
            raise

    def read(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows as they are found."""
        try:
            for row in self.connection.execute(query, values):  # noqa: UP028 (it would close the cursor, which may fail)
                yield row
        except FAILURES as error:
            self.error = self._explained(error, "read")
            raise self.error from error

    def one(self, query: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The only row, or None."""
        try:
            row: tuple[Any, ...] | None = self.connection.execute(query, values).fetchone()
        except FAILURES as error:
            self.error = self._explained(error, "read")
            raise self.error from error
        return row

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        if self._connection is None:
            raise StoreError(f"{self.path} is closed")
        return self._connection

    def close(self) -> None:
        """Give the store up. What was committed stays committed, whatever fails here."""
        connection, self._connection = self._connection, None
        if connection is not None and os.getpid() == self._pid:
            with suppress(*FAILURES):
                if self._signed:
                    connection.execute("DELETE FROM owner")
            with suppress(*FAILURES):
                connection.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # Opening ---------------------------------------------------------------------------------------------------

    def _owner(self) -> str:
        """Who writes the store, as far as it can be read."""
        with suppress(*FAILURES, TypeError), closing(self._connect("mode=ro", timeout=0.2)) as connection:
            row = connection.execute("SELECT pid, host, heartbeat FROM owner").fetchone()
            if row is not None:
                return f"process {row[0]} on {row[1]} (last commit {max(0, time.time() - row[2]):.0f} s ago)"
        return "another process"

    def _open(self, durable: bool) -> None:
        if self.readonly:
            self._connection = self._reader()
        else:
            self._connection = self._connect("mode=rwc")
        connection = self.connection
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        new = not tables and not application and not version
        if application != APPLICATION and not new:
            raise ConfigError(f"{self.path} is not a Flyweight store, or its first bytes are damaged")
        if version > VERSION:
            raise ConfigError(
                f"{self.path} has schema {version}, this Flyweight knows {VERSION}: upgrade, or its header is damaged"
            )
        if self.readonly:
            if new:
                raise ConfigError(f"{self.path} is empty: nothing has been recorded in it")
            if version != VERSION:
                raise ConfigError(f"{self.path} has the old schema {version}: open it for writing once to migrate it")
            return
        wanted = "DELETE" if network_file_system(self.path) else "WAL"
        connection.execute(f"PRAGMA journal_mode = {wanted}")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable or wanted == 'DELETE' else 'NORMAL'}")
        if new:
            self._script(SCHEMA)
        elif version < VERSION:
            self._migrate(version)
        self._sign()

    def _reader(self) -> sqlite3.Connection:
        """A connection that changes nothing, also where SQLite cannot make its index file."""
        # Not mode=ro: the last to close could then not take away the log and index file that SQLite makes to read.
        connection = self._connect("mode=rw")
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_schema")
        except sqlite3.OperationalError as error:
            connection.close()
            wal = self.path.with_name(self.path.name + "-wal")
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or wal.exists():
                raise
            connection = self._connect("mode=ro&immutable=1")  # nobody writes it: it was closed cleanly
        return connection

    def _connect(self, mode: str, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.path))}?{mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)
        # Garbled text is for the row's checksum to find; it must not make the row unreadable.
        connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        return connection

    def _script(self, script: str) -> None:
        """Execute a schema's statements and stamp the result, all at once."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        for statement in script.split(";"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    def _migrate(self, version: int) -> None:
        """Bring an old schema up to date; the store as it was stays beside it."""
        unknown = [step for step in range(version, VERSION) if step not in MIGRATIONS]
        if unknown:
            raise ConfigError(f"{self.path} has schema {version}, which cannot be migrated to {VERSION}")
        self.backup = self.path.with_name(f"{self.path.name}.v{version}.bak")
        with closing(sqlite3.connect(self.backup)) as copy:
            self.connection.backup(copy)
        self._script(";".join(MIGRATIONS[step] for step in range(version, VERSION)))

    def _sign(self) -> None:
        """Write down who owns the store. If the last owner never closed it, look it over first."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        self.took_over = connection.execute("SELECT count(*) FROM owner").fetchone()[0] > 0
        if self.took_over:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise self.damaged(str(found))
        now = time.time()
        row = (1, self._pid, _boot(), socket.gethostname(), now, now)
        connection.execute("INSERT OR REPLACE INTO owner VALUES (?, ?, ?, ?, ?, ?)", row)
        connection.execute("COMMIT")
        self._signed = True

    # What went wrong -------------------------------------------------------------------------------------------

    def _still_there(self) -> None:
        """SQLite goes on writing to a file that has been deleted; nobody would ever read it."""
        if os.getpid() != self._pid:
            raise StoreError(f"{self.path} was opened by process {self._pid}: a child must open its own")
        try:
            same = os.stat(self.path).st_ino == self._inode
        except OSError:
            same = False
        if not same:
            self.error = StoreError(f"cannot write {self.path}: it was deleted or replaced while in use; run again")
            raise self.error

    def damaged(self, cause: str) -> StoreError:
        """The error for a file that does not hold what was written."""
        cause = " ".join(cause.split())
        return StoreError(
            f"{self.path} is damaged ({cause}): flyweight.store.salvage({str(self.path)!r}) keeps every intact row"
        )

    def _explained(self, error: Exception, doing: str) -> StoreError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        # The statements are right, so one that makes no sense to SQLite (ERROR) says that the schema is not ours.
        broken = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
        if code in broken or not isinstance(error, sqlite3.OperationalError):
            return self.damaged(str(error))
        causes = {
            sqlite3.SQLITE_FULL: "the disk is full; free some space and run again",
            sqlite3.SQLITE_IOERR: "the disk failed or a file size limit was reached; run again once that is repaired",
            sqlite3.SQLITE_READONLY: "it may not be written; check the permissions of the file and its folder",
            sqlite3.SQLITE_CANTOPEN: "the file or one beside it may not be opened; check the folder's permissions",
            sqlite3.SQLITE_BUSY: "another program keeps it locked",
        }
        return StoreError(f"cannot {doing} {self.path}: {causes.get(code, error)}")


def network_file_system(path: Path) -> bool:
    """Whether the path lies on a file system known to be shared between machines; False where that cannot be seen."""
    try:
        mounts = [line.split(" ")[1:3] for line in MOUNTS.read_text("utf-8", "replace").splitlines()]
    except (OSError, IndexError):
        return False
    real = path.resolve()
    # The kernel writes a blank in a mount point as \040; the last mount on a point is the one that is seen.
    found = {Path(point.replace("\\040", " ")): kind for point, kind in mounts}
    kind = next((found[place] for place in (real, *real.parents) if place in found), "")
    return kind in NETWORK or kind.startswith("fuse.")


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _boot() -> str:
    """Which start of the machine this is."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
