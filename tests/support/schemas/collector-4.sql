-- The tables of the collector's database of schemas 3 and 4, as those versions made them.
CREATE TABLE schema ( version INTEGER NOT NULL, PRIMARY KEY (version) );
CREATE TABLE bundles ( sha256 TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, added_ms
    BIGINT NOT NULL, bytes BIGINT NOT NULL, manifest BLOB NOT NULL, baseline BLOB, PRIMARY KEY
    (sha256) );
CREATE TABLE devices ( id INTEGER NOT NULL, site TEXT NOT NULL, device TEXT NOT NULL, first_seen_ms
    BIGINT NOT NULL, last_seen_ms BIGINT, online BOOLEAN NOT NULL, status TEXT, reported TEXT,
    PRIMARY KEY (id), UNIQUE (site, device) );
CREATE TABLE groups ( id INTEGER NOT NULL, site TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT
    NULL, stream TEXT NOT NULL, slot_ms BIGINT NOT NULL, saved TEXT NOT NULL, state BLOB NOT NULL,
    phase TEXT NOT NULL, reason TEXT NOT NULL, reference INTEGER NOT NULL, devices INTEGER NOT NULL,
    evidence FLOAT NOT NULL, threshold FLOAT NOT NULL, last_slot BIGINT NOT NULL, last_ms BIGINT NOT
    NULL, PRIMARY KEY (id), UNIQUE (site, model, version, stream, slot_ms) );
CREATE TABLE budget_days ( day_ms BIGINT NOT NULL, windows BIGINT NOT NULL, expected FLOAT NOT NULL,
    PRIMARY KEY (day_ms) );
CREATE TABLE retractions ( id INTEGER NOT NULL, at_ms BIGINT NOT NULL, "by" TEXT NOT NULL, why TEXT
    NOT NULL, selection TEXT NOT NULL, windows BIGINT NOT NULL, rows BIGINT NOT NULL, devices
    INTEGER NOT NULL, undone_ms BIGINT, undone_by TEXT DEFAULT '' NOT NULL, PRIMARY KEY (id) );
CREATE TABLE rebaselines ( id INTEGER NOT NULL, at_ms BIGINT NOT NULL, "by" TEXT NOT NULL, selection
    TEXT NOT NULL, streams INTEGER NOT NULL, PRIMARY KEY (id) );
CREATE TABLE feedback_batches ( sha256 TEXT NOT NULL, at_ms BIGINT NOT NULL, rows BIGINT NOT NULL,
    PRIMARY KEY (sha256) );
CREATE TABLE boots ( device_id INTEGER NOT NULL, boot TEXT NOT NULL, through BIGINT NOT NULL, agent
    TEXT DEFAULT '' NOT NULL, PRIMARY KEY (device_id, boot), FOREIGN KEY(device_id) REFERENCES
    devices (id) );
CREATE TABLE windows ( id INTEGER NOT NULL, device_id INTEGER NOT NULL, boot TEXT NOT NULL, sequence
    BIGINT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, start_ms BIGINT NOT NULL, artifact
    TEXT NOT NULL, bundle TEXT NOT NULL, duration_ms BIGINT NOT NULL, rows BIGINT NOT NULL, merged
    BIGINT DEFAULT '1' NOT NULL, outcomes TEXT NOT NULL, baseline TEXT NOT NULL, received_ms BIGINT
    NOT NULL, evaluated BOOLEAN NOT NULL, refused TEXT, retraction_id BIGINT, PRIMARY KEY (id),
    UNIQUE (device_id, boot, sequence, model, version, start_ms), FOREIGN KEY(device_id) REFERENCES
    devices (id) );
CREATE INDEX windows_waiting ON windows (evaluated, bundle, id);
CREATE TABLE outcome_rollups ( device_id INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT
    NULL, hour_ms BIGINT NOT NULL, outcome TEXT NOT NULL, count BIGINT NOT NULL, PRIMARY KEY
    (device_id, model, version, hour_ms, outcome), FOREIGN KEY(device_id) REFERENCES devices (id) );
CREATE TABLE count_rollups ( device_id INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
    stream TEXT NOT NULL, grid TEXT NOT NULL, hour_ms BIGINT NOT NULL, windows BIGINT NOT NULL,
    packed BLOB NOT NULL, PRIMARY KEY (device_id, model, version, stream, grid, hour_ms), FOREIGN
    KEY(device_id) REFERENCES devices (id) );
CREATE TABLE streams ( id INTEGER NOT NULL, device_id INTEGER NOT NULL, model TEXT NOT NULL, version
    TEXT NOT NULL, artifact TEXT NOT NULL, stream TEXT NOT NULL, grid TEXT NOT NULL, bundle TEXT NOT
    NULL, saved BLOB NOT NULL, phase TEXT NOT NULL, reason TEXT NOT NULL, reference INTEGER NOT
    NULL, offset_js FLOAT, evidence FLOAT NOT NULL, windows BIGINT NOT NULL, threshold FLOAT NOT
    NULL, last_ms BIGINT NOT NULL, stuck TEXT DEFAULT '{}' NOT NULL, PRIMARY KEY (id), UNIQUE
    (device_id, model, version, artifact, stream, grid), FOREIGN KEY(device_id) REFERENCES devices
    (id) );
CREATE TABLE events ( id INTEGER NOT NULL, device_id INTEGER NOT NULL, boot TEXT NOT NULL, kind TEXT
    NOT NULL, time_ms BIGINT NOT NULL, digest TEXT NOT NULL, model TEXT NOT NULL, message TEXT NOT
    NULL, details TEXT NOT NULL, received_ms BIGINT NOT NULL, PRIMARY KEY (id), UNIQUE (device_id,
    boot, kind, time_ms, digest), FOREIGN KEY(device_id) REFERENCES devices (id) );
CREATE TABLE group_points ( group_id INTEGER NOT NULL, slot BIGINT NOT NULL, start_ms BIGINT NOT
    NULL, devices INTEGER NOT NULL, scores TEXT NOT NULL, role TEXT NOT NULL, seed BIGINT NOT NULL,
    evidence FLOAT, threshold FLOAT NOT NULL, PRIMARY KEY (group_id, slot), FOREIGN KEY(group_id)
    REFERENCES groups (id) );
CREATE TABLE group_alarms ( id INTEGER NOT NULL, group_id INTEGER NOT NULL, opened_ms BIGINT NOT
    NULL, since_ms BIGINT NOT NULL, closed_ms BIGINT, reason TEXT DEFAULT '' NOT NULL, shift TEXT
    NOT NULL, evidence FLOAT NOT NULL, threshold FLOAT NOT NULL, PRIMARY KEY (id), FOREIGN
    KEY(group_id) REFERENCES groups (id) );
CREATE INDEX group_alarms_by_group ON group_alarms (group_id, closed_ms);
CREATE TABLE feedback ( device_id INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
    hour_ms BIGINT NOT NULL, "group" TEXT NOT NULL, counts TEXT NOT NULL, PRIMARY KEY (device_id,
    model, version, hour_ms, "group"), FOREIGN KEY(device_id) REFERENCES devices (id) );
CREATE TABLE counts ( window_id INTEGER NOT NULL, place INTEGER NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (window_id, place), FOREIGN KEY(window_id) REFERENCES windows (id) );
CREATE TABLE tracks ( stream_id INTEGER NOT NULL, rung INTEGER NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (stream_id, rung), FOREIGN KEY(stream_id) REFERENCES streams (id) );
CREATE TABLE tests ( stream_id INTEGER NOT NULL, rung INTEGER NOT NULL, "index" BIGINT NOT NULL,
    window_id INTEGER NOT NULL, start_ms BIGINT NOT NULL, cells BLOB NOT NULL, seed BIGINT NOT NULL,
    role TEXT NOT NULL, scores TEXT NOT NULL, common TEXT, innovations TEXT, mean FLOAT, evidence
    FLOAT, threshold FLOAT NOT NULL, js FLOAT NOT NULL, excess_js FLOAT NOT NULL, psi FLOAT NOT
    NULL, w1 FLOAT, ks FLOAT, chi2 FLOAT NOT NULL, dof INTEGER NOT NULL, p FLOAT NOT NULL, n BIGINT
    NOT NULL, m BIGINT NOT NULL, effect FLOAT NOT NULL, detectable FLOAT NOT NULL, PRIMARY KEY
    (stream_id, rung, "index"), FOREIGN KEY(stream_id) REFERENCES streams (id), FOREIGN
    KEY(window_id) REFERENCES windows (id) );
CREATE TABLE alarms ( id INTEGER NOT NULL, stream_id INTEGER NOT NULL, opened_ms BIGINT NOT NULL,
    since_ms BIGINT NOT NULL, closed_ms BIGINT, reason TEXT DEFAULT '' NOT NULL, change FLOAT NOT
    NULL, evidence FLOAT NOT NULL, threshold FLOAT NOT NULL, windows INTEGER NOT NULL, moved TEXT
    NOT NULL, first_index BIGINT NOT NULL, last_index BIGINT NOT NULL, PRIMARY KEY (id), FOREIGN
    KEY(stream_id) REFERENCES streams (id) );
CREATE INDEX alarms_by_stream ON alarms (stream_id, closed_ms);
