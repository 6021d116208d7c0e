-- SPDX-License-Identifier: Apache-2.0
-- The history of seqmark's rows, version 3 (PRAGMA user_version). Times are seconds, dates ISO 8601
-- in UTC.
CREATE TABLE machine (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);
CREATE TABLE row (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE  -- without what Google Benchmark adds
);
-- What a run was on: JSON, an object of strings.
CREATE TABLE facts (
  id INTEGER PRIMARY KEY,
  document TEXT NOT NULL UNIQUE
);
CREATE TABLE run (
  id INTEGER PRIMARY KEY,
  run_id TEXT NOT NULL UNIQUE,
  machine INTEGER NOT NULL REFERENCES machine,
  date TEXT NOT NULL,
  facts INTEGER NOT NULL REFERENCES facts,
  command TEXT NOT NULL,
  digest TEXT NOT NULL,  -- of its samples: the same run again is the same run
  judged INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX run_by_machine ON run (machine, date, id);
CREATE TABLE sample (
  row INTEGER NOT NULL REFERENCES row,
  run INTEGER NOT NULL REFERENCES run,
  seconds REAL CHECK (seconds > 0),
  noise REAL,
  failure TEXT,  -- why there is no time
  throttled REAL,  -- share of the time in which the device was held back; null: none, or not told
  PRIMARY KEY (row, run),
  CHECK ((seconds IS NULL) <> (failure IS NULL))
) WITHOUT ROWID;
CREATE TABLE verdict (
  id INTEGER PRIMARY KEY,
  row INTEGER NOT NULL REFERENCES row,
  decided INTEGER NOT NULL REFERENCES run,  -- the night
  onset INTEGER NOT NULL REFERENCES run,  -- the first night at the new level
  kind TEXT NOT NULL,
  before REAL,
  after REAL,
  pvalue REAL,
  reruns TEXT NOT NULL,  -- JSON, an array of seconds
  note TEXT NOT NULL,
  UNIQUE (row, decided)
);
