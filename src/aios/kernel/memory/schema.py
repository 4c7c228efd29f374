"""The tables of long-term memory, step by step as they came to be."""

from aios.disk.migrations import Schema

SCHEMA = Schema(
    "memory",
    (
        """
        CREATE TABLE memory_spaces (
            id INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL,
            UNIQUE (scope, owner, name)
        );
        CREATE TABLE memory_notes (
            id INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL REFERENCES memory_spaces (id), text TEXT NOT NULL,
            tags TEXT NOT NULL, importance REAL NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL, pid INTEGER NOT NULL,
            seq INTEGER NOT NULL, source TEXT NOT NULL, created_unix_s REAL NOT NULL, valid_from_unix_s REAL NOT NULL,
            valid_to_unix_s REAL, expires_unix_s REAL, n_used INTEGER NOT NULL DEFAULT 0, supersedes INTEGER,
            superseded_by INTEGER
        );
        CREATE INDEX memory_notes_by_space ON memory_notes (space, id);
        CREATE INDEX memory_notes_by_expiry ON memory_notes (expires_unix_s) WHERE expires_unix_s IS NOT NULL;
        CREATE TABLE memory_links (
            a INTEGER NOT NULL REFERENCES memory_notes (id) ON DELETE CASCADE,
            b INTEGER NOT NULL REFERENCES memory_notes (id) ON DELETE CASCADE,
            PRIMARY KEY (a, b)
        ) WITHOUT ROWID;
        CREATE INDEX memory_links_back ON memory_links (b);
        CREATE TABLE memory_vectors (
            note INTEGER PRIMARY KEY REFERENCES memory_notes (id) ON DELETE CASCADE, embedder TEXT NOT NULL,
            vector BLOB NOT NULL
        );
        CREATE VIRTUAL TABLE memory_words USING fts5 (
            text, content = 'memory_notes', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
        );
        CREATE TRIGGER memory_words_add AFTER INSERT ON memory_notes BEGIN
            INSERT INTO memory_words (rowid, text) VALUES (new.id, new.text);
        END;
        CREATE TRIGGER memory_words_remove AFTER DELETE ON memory_notes BEGIN
            INSERT INTO memory_words (memory_words, rowid, text) VALUES ('delete', old.id, old.text);
        END;
        """,
        """
        CREATE TABLE memory_counts (owner TEXT PRIMARY KEY, n_notes INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO memory_counts SELECT owner, count(*) FROM memory_notes GROUP BY owner;
        CREATE TRIGGER memory_counts_add AFTER INSERT ON memory_notes BEGIN
            INSERT INTO memory_counts VALUES (new.owner, 1) ON CONFLICT (owner) DO UPDATE SET n_notes = n_notes + 1;
        END;
        CREATE TRIGGER memory_counts_remove AFTER DELETE ON memory_notes BEGIN
            UPDATE memory_counts SET n_notes = n_notes - 1 WHERE owner = old.owner;
        END;
        """,
        "ALTER TABLE memory_notes ADD COLUMN taint TEXT NOT NULL DEFAULT ''",
        # The words of notes are indexed together, at the end of a commit (`tables.index_words`): with one note at a time FTS5
        # writes, and later merges, a segment each, which took more than half of a write. Ids only grow, so the last one that
        # was indexed tells which are not.
        """
        DROP TRIGGER memory_words_add;
        CREATE TABLE memory_worded (last INTEGER NOT NULL);
        INSERT INTO memory_worded SELECT ifnull(max(id), 0) FROM memory_notes;
        DROP TRIGGER memory_words_remove;
        CREATE TRIGGER memory_words_remove AFTER DELETE ON memory_notes WHEN old.id <= (SELECT last FROM memory_worded) BEGIN
            INSERT INTO memory_words (memory_words, rowid, text) VALUES ('delete', old.id, old.text);
        END;
        """,
        # What each far embedder made of the probes (`asking.PROBES`): another model may answer by the same name one day.
        "CREATE TABLE memory_embedders (name TEXT PRIMARY KEY, probes BLOB NOT NULL) WITHOUT ROWID",
    ),
)
