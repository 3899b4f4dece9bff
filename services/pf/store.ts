/** What must survive a restart of the PF: its settings and every VF's policy, in SQLite. */
import { DatabaseSync } from "node:sqlite";
import { z } from "@hono/zod-openapi";
import {
  ApiError,
  defaultPolicy,
  Mirror,
  PausedAddress,
  uplinkMac,
  UplinkSpec,
  VfPolicy,
  Vport,
  VPORTS_MAX,
} from "../../shared/api/mod.ts";
import { isNewFabric, log, oneLine } from "../../shared/api/mod.ts";
import { VF_MAX } from "../../shared/layout/nic.ts";
import { deriveMac } from "./mac.ts";

/** 2: uplinks; a link that is up without anybody having said so is auto. */
const SCHEMA_VERSION = 2;

/** What vports' derived addresses are counted from; VFs' are counted from 0. */
const VPORT_BASE = 0x1000;

/** The address that a VF has while its guest runs, and the one that it gets when the guest stands still to be moved. */
const PausedPair = z.strictObject({ from: PausedAddress, to: PausedAddress });
export type PausedPair = z.output<typeof PausedPair>;
const PausedPairs = z.record(z.string(), PausedPair);

/** Everything the PF keeps. */
export interface Settings {
  switchMode: "veb" | "vepa";
  link: "auto" | "up" | "down";
  pfMac: string;
  /** Which VLANs the uplink carries. */
  uplinkTrunk: "all" | number[];
  uplinkNativeVlan: number;
  /** Who gets copies of the PF's pool's frames. */
  pfMirror: string | null;
  vfs: VfPolicy[];
  vports: Vport[];
  /** What of the host is behind which pool: by "uplink", "pf" or the number of a VF. Those without one have none. */
  uplinks: Record<string, UplinkSpec>;
  /** Which VFs get another address when their guests, which are moved, stand still: by the VF's number. */
  pausedAddresses: Record<string, PausedPair>;
}

/** Opens the database at `path`. One that is damaged is put aside, and a new one is begun. Throws if neither can be. */
function openDatabase(path: string): DatabaseSync {
  try {
    return openSound(path);
  } catch (cause) {
    const isDamaged = cause instanceof DamagedDatabase || /malformed|not a database/.test(oneLine(cause));
    if (!isDamaged) throw new Error(`Cannot open the database ${path}: ${oneLine(cause)}`, { cause });
    const aside = `${path}.damaged-${new Date().toISOString().replaceAll(":", "")}`;
    Deno.renameSync(path, aside);
    // What it was still to be changed by is not for the new one.
    for (const more of ["-wal", "-journal"]) renameIfThere(path + more, aside + more);
    log(
      "error",
      "pf",
      `the database ${path} is damaged (${
        oneLine(cause)
      }): it is ${aside} now. Every policy begins anew: restore it, ` +
        "or set what is to be set",
    );
    return openSound(path);
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    Deno.renameSync(from, to);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

class DamagedDatabase extends Error {
  override readonly name = "DamagedDatabase";
}

function openSound(path: string): DatabaseSync {
  const db = new DatabaseSync(path);
  try {
    // A write-ahead log waits for the disk once in each commit, a rollback journal four times: a guest that moves stands
    // still meanwhile. The lock is exclusive, since nobody else reads it: so its index is no shared-memory file.
    db.exec(
      "PRAGMA busy_timeout = 2000; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL",
    );
    const check = Object.values(db.prepare("PRAGMA quick_check").get() ?? {})[0];
    if (check !== "ok") throw new DamagedDatabase(String(check));
    const row = db.prepare("PRAGMA user_version").get() as { user_version: number };
    if (row.user_version > SCHEMA_VERSION) {
      throw new Error(`it was written by a newer version (schema ${row.user_version})`);
    }
    db.exec(`
      CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS vf (id INTEGER PRIMARY KEY, policy TEXT NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS vport (id INTEGER PRIMARY KEY, policy TEXT NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS uplink (pool TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;
      ${row.user_version < 2 ? "DELETE FROM setting WHERE name = 'link' AND value = 'up';" : ""}
      PRAGMA user_version = ${SCHEMA_VERSION}`);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** The database. Every write is one transaction, on disk when it returns. */
export class Store implements Disposable {
  readonly #path: string;
  readonly #db: DatabaseSync;
  readonly #macSeed: string;

  /** Opens or creates the database at `path`; a new one has `defaultVfs` VFs and addresses derived from `macSeed`. */
  constructor(path: string, macSeed: string, defaultVfs: number) {
    this.#path = path;
    this.#db = openDatabase(path);
    this.#macSeed = this.#setting("macSeed") ?? macSeed;
    this.#setSetting("macSeed", this.#macSeed);
    if (this.#setting("numVfs") === undefined) this.#setSetting("numVfs", String(defaultVfs));
  }

  #setting(name: string): string | undefined {
    const row = this.#db.prepare("SELECT value FROM setting WHERE name = ?").get(name);
    return row === undefined ? undefined : String(row.value);
  }

  #setSetting(name: string, value: string): void {
    this.#db.prepare("INSERT INTO setting VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value")
      .run(name, value);
  }

  /** A VF's policy before anyone sets it. */
  initialPolicy(vf: number): VfPolicy {
    return defaultPolicy(deriveMac(this.#macSeed, vf));
  }

  /** A vport before anyone sets it. */
  initialVport(id: number): Vport {
    const { hardware: _, ...policy } = defaultPolicy(deriveMac(this.#macSeed, VPORT_BASE + id));
    return { id, ...policy, vf: null };
  }

  /** Whose address `mac` is before anyone sets one: that VF or vport may come later, and is to get it. */
  derivedOwner(mac: string): string | undefined {
    const pfMac = deriveMac(this.#macSeed, "pf");
    if (mac === pfMac) return "the PF";
    if (mac === uplinkMac(pfMac)) return "the uplink's port";
    for (let vf = 0; vf < VF_MAX; vf++) if (deriveMac(this.#macSeed, vf) === mac) return `vf ${vf}`;
    for (let id = 0; id < VPORTS_MAX; id++) if (deriveMac(this.#macSeed, VPORT_BASE + id) === mac) return `vport ${id}`;
    return undefined;
  }

  /** What was kept, or the defaults. */
  load(): Settings {
    const rows = this.#db.prepare("SELECT id, policy FROM vf ORDER BY id").all();
    const vports = this.#db.prepare("SELECT id, policy FROM vport ORDER BY id").all();
    const uplinks = this.#db.prepare("SELECT pool, spec FROM uplink").all();
    const link = this.#setting("link");
    const count = Number(this.#setting("numVfs"));
    // What an older version did not know has its first value.
    const kept = new Map(rows.map((row) => {
      const id = Number(row.id);
      return [id, VfPolicy.parse({ ...this.initialPolicy(id), ...JSON.parse(String(row.policy)) })];
    }));
    return {
      switchMode: this.#setting("switchMode") === "vepa" ? "vepa" : "veb",
      link: link === "down" || link === "up" ? link : "auto",
      pfMac: deriveMac(this.#macSeed, "pf"),
      uplinkTrunk: JSON.parse(this.#setting("uplinkTrunk") ?? '"all"'),
      uplinkNativeVlan: Number(this.#setting("uplinkNativeVlan") ?? 0),
      pfMirror: Mirror.parse(JSON.parse(this.#setting("pfMirror") ?? "null")),
      vfs: Array.from({ length: count }, (_, vf) => kept.get(vf) ?? this.initialPolicy(vf)),
      vports: vports.map((row) => {
        const id = Number(row.id);
        const kept = Vport.parse({ ...this.initialVport(id), ...JSON.parse(String(row.policy)) });
        // A VF is allotted to a guest, and that of an earlier run is gone.
        return isNewFabric() ? { ...kept, vf: null } : kept;
      }),
      uplinks: Object.fromEntries(
        uplinks.map(({ pool, spec }) => [String(pool), UplinkSpec.parse(JSON.parse(String(spec)))]),
      ),
      pausedAddresses: PausedPairs.parse(JSON.parse(this.#setting("pausedAddresses") ?? "{}")),
    };
  }

  /**
   * Keeps `settings` if `apply` succeeds: its effect and the stored state change together or not at all. Throws ApiError if
   * they cannot be written.
   */
  async save(settings: Settings, apply: () => Promise<void>): Promise<void> {
    try {
      this.#db.exec("BEGIN IMMEDIATE");
      this.#setSetting("switchMode", settings.switchMode);
      this.#setSetting("link", settings.link);
      this.#setSetting("uplinkTrunk", JSON.stringify(settings.uplinkTrunk));
      this.#setSetting("uplinkNativeVlan", String(settings.uplinkNativeVlan));
      this.#setSetting("pfMirror", JSON.stringify(settings.pfMirror));
      this.#setSetting("numVfs", String(settings.vfs.length));
      this.#setSetting("pausedAddresses", JSON.stringify(settings.pausedAddresses));
      // What is as it was makes the log no longer.
      const write = this.#db.prepare(
        "INSERT INTO vf VALUES (?, ?) ON CONFLICT DO UPDATE SET policy = excluded.policy WHERE policy <> excluded.policy",
      );
      settings.vfs.forEach((policy, vf) => write.run(vf, JSON.stringify(policy)));
      this.#db.prepare("DELETE FROM vf WHERE id >= ?").run(settings.vfs.length);
      this.#db.exec("DELETE FROM vport");
      const insert = this.#db.prepare("INSERT INTO vport VALUES (?, ?)");
      for (const vport of settings.vports) insert.run(vport.id, JSON.stringify(vport));
      this.#db.exec("DELETE FROM uplink");
      const keep = this.#db.prepare("INSERT INTO uplink VALUES (?, ?)");
      for (const [pool, spec] of Object.entries(settings.uplinks)) keep.run(pool, JSON.stringify(spec));
      await apply();
      this.#db.exec("COMMIT");
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      if ((error as { code?: unknown }).code !== "ERR_SQLITE_ERROR") throw error;
      const detail = `the policy cannot be written to ${this.#path} (${oneLine(error)}): nothing has changed`;
      log("error", "pf", detail);
      throw new ApiError(503, detail, undefined, "not-stored");
    }
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }
}
