/**
 * The guests' line to their hypervisor, through the vf service's API: a guest reports, hears what its interface is to be,
 * and wishes for something else. What it says of itself is shown, and decides nothing.
 */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import type { OpenAPIHono } from "@hono/zod-openapi";
import {
  ApiError,
  defaultPolicy,
  type GuestView,
  type LinkPatch,
  type Problem,
  Restarts,
  type VfPolicy,
} from "../../shared/api/mod.ts";
import { vfApi } from "../../services/vf/api.ts";
import { type GuestPeers, Guests } from "../../services/vf/guests.ts";
import { ask, refusalOf } from "../support/app.ts";
import { FakeFetch } from "../support/fake_fetch.ts";
import { VirtualTime } from "../support/virtual_time.ts";

const AWAY = new ApiError(503, "the PF does not answer", undefined, "unreachable");
const MODE = { mode: "emulated", connected: true } as const;
const REPORT = { api: "http://10.0.0.1:8090", boot: "boot-1", mode: MODE };
const ALLOW_TX = "/api/v1/path/resume";

/** The vf service's side of guests, with a PF that the test plays. */
class Hypervisor implements GuestPeers {
  readonly token = "master";
  readonly app: OpenAPIHono;
  readonly time: VirtualTime;
  readonly guest: FakeFetch;
  readonly guests: Guests;
  policy: VfPolicy = defaultPolicy("02:00:00:00:00:01");
  link: "up" | "down" = "up";
  /** What the PF says to whatever it is asked. */
  trouble: ApiError | undefined;
  readonly wishes: [string, LinkPatch][] = [];
  /** Ports whose groups were left, ports that were set up for a guest that has booted, and ports that were looked at. */
  readonly left: string[] = [];
  readonly booted: unknown[] = [];
  readonly looked: unknown[] = [];
  bootTrouble: ApiError | undefined;

  constructor(time: VirtualTime, guest: FakeFetch) {
    this.time = time;
    this.guest = guest;
    this.guests = new Guests(this, new Map([["1", "one"]]));
    const none = () => Promise.reject(new Error("not in this test"));
    this.app = vfApi({
      guests: this.guests,
      unreadiness: () => Promise.resolve(undefined),
      restarts: new Restarts("vf"),
      registry: { list: [], trust: { keys: [] }, add: none, find: none, remove: none },
      modes: {
        ...{ get: none, list: none, set: none, subscribe: () => () => {} },
        booted: (port) => {
          this.booted.push(port);
          return this.bootTrouble ? Promise.reject(this.bootTrouble) : Promise.resolve();
        },
        reconcile: (port) => Promise.resolve(void this.looked.push(port)),
      },
    }, undefined);
  }

  #answer<T>(value: T): Promise<T> {
    return this.trouble ? Promise.reject(this.trouble) : Promise.resolve(value);
  }

  config(): Promise<never> {
    return this.#answer(this.policy as never);
  }

  carrier(): Promise<"up" | "down"> {
    return this.#answer(this.link);
  }

  async wish(port: string, wish: LinkPatch): Promise<void> {
    this.wishes.push([port, wish]);
    await this.#answer(undefined);
  }

  async leaveGroups(port: string): Promise<void> {
    await this.#answer(undefined);
    this.left.push(port);
  }

  async report(port: string, report: Record<string, unknown> = {}) {
    return await this.time.run(ask<Problem & Record<string, unknown>>(this.app, "PUT", `/api/v1/guests/${port}`, {
      ...REPORT,
      ...report,
    }));
  }

  async list(): Promise<GuestView[]> {
    return (await ask<GuestView[]>(this.app, "GET", "/api/v1/guests")).body;
  }
}

function guestsTest(name: string, fn: (hypervisor: Hypervisor) => Promise<void>): void {
  Deno.test(name, async () => {
    using time = new VirtualTime();
    using guest = new FakeFetch();
    await fn(new Hypervisor(time, guest));
  });
}

guestsTest("a guest that reports hears what its interface is to be", async (hypervisor) => {
  const { status, body } = await hypervisor.report("0");
  assertEquals(
    [status, body],
    [200, { mac: "02:00:00:00:00:01", up: true, promisc: false, multicast: "all" }] as unknown[],
  );
  assertEquals([hypervisor.booted, hypervisor.looked], [[0], [0]]);
  assertEquals(await hypervisor.list(), [{
    port: "0",
    api: REPORT.api,
    mode: MODE,
    seat: "running",
    seenSecondsAgo: 0,
  }]);
});

guestsTest(
  "a guest can be asked for its data path while one runs on its seat, and not while one is waited for",
  async (hypervisor) => {
    for (const seat of ["running", "leaving"]) {
      await hypervisor.report("0", { seat });
      assertEquals(hypervisor.guests.find("0")?.api, REPORT.api, seat);
    }
    for (const seat of ["stopped", "gone", "waiting", "arriving", "arrived"]) {
      await hypervisor.report("0", { seat });
      assertEquals([hypervisor.guests.find("0"), (await hypervisor.list())[0]?.seat], [undefined, seat] as unknown[]);
    }
    const { status } = await hypervisor.report("0", { seat: "lost" });
    assertEquals(status, 422);
  },
);

guestsTest(
  "a service that has just started waits for a guest's first report, and one that has run for long does not",
  async (hypervisor) => {
    const asked = hypervisor.guests.findSoon("0");
    await hypervisor.report("0");
    assertEquals((await hypervisor.time.run(asked))?.api, REPORT.api);
    const before = hypervisor.time.now;
    assertEquals(await hypervisor.time.run(hypervisor.guests.findSoon("7")), undefined);
    const waited = hypervisor.time.now - before;
    assertEquals(await hypervisor.time.run(hypervisor.guests.findSoon("7")), undefined);
    assertEquals([waited > 0, hypervisor.time.now - before], [true, waited]);
  },
);

guestsTest(
  "whoever asks for one guest of a service that has just started is not told that it is none, also if it leaves",
  async (hypervisor) => {
    const view = (port: string) => ask<Problem & GuestView>(hypervisor.app, "GET", `/api/v1/guests/${port}`);
    const asked = view("0");
    await hypervisor.report("0", { seat: "stopped" });
    const { status, body } = await hypervisor.time.run(asked);
    assertEquals([status, body.api, body.seat], [200, REPORT.api, "stopped"]);
    const none = await hypervisor.time.run(view("7"));
    assertEquals([none.status, none.body.reason], [404, "no-guest"]);
  },
);

guestsTest("its link is up if the PF says so, or with the NIC's", async (hypervisor) => {
  const cases = [["auto", "up", true], ["auto", "down", false], ["enable", "down", true], [
    "disable",
    "up",
    false,
  ]] as const;
  for (const [linkState, link, up] of cases) {
    hypervisor.policy = { ...hypervisor.policy, linkState };
    hypervisor.link = link;
    assertEquals((await hypervisor.report("0")).body.up, up, `${linkState}, the NIC ${link}`);
  }
});

guestsTest("it hears of the multicast that it receives, not of all that the PF allows", async (hypervisor) => {
  const groups = ["01:00:5e:00:00:01", "01:00:5e:00:00:02"];
  hypervisor.policy = { ...hypervisor.policy, multicast: groups, guestMulticast: groups.slice(1) };
  assertEquals((await hypervisor.report("0")).body.multicast, groups.slice(1));
});

guestsTest("while the PF is away a guest keeps what it had; one that had nothing comes again", async (hypervisor) => {
  const { body } = await hypervisor.report("0");
  hypervisor.trouble = AWAY;
  assertEquals((await hypervisor.report("0")).body, body);
  assertEquals((await hypervisor.report("1")).status, 503);
  hypervisor.trouble = new ApiError(404, "there is no vf 0: there are none", "id");
  assertEquals((await hypervisor.report("0")).status, 404, "a VF that has gone is told");
});

// Booting ------------------------------------------------------------------------------------------------------

guestsTest("a port is set up once for each boot, before its guest is answered", async (hypervisor) => {
  await hypervisor.report("vport3");
  await hypervisor.report("vport3");
  await hypervisor.time.pass(1000);
  await hypervisor.report("vport3", { boot: "boot-2" });
  assertEquals(hypervisor.booted, ["vport3", "vport3"]);
});

guestsTest("a guest that drives its VF is not disturbed by a vf service that has just started", async (hypervisor) => {
  await hypervisor.report("0", {
    mode: { mode: "passthrough", plugin: "advanced", version: "1.0.0", connected: true },
  });
  assertEquals([hypervisor.booted, hypervisor.looked], [[], [0]]);
});

guestsTest("a guest that was unknown is told to send: another service may have had it rest", async (hypervisor) => {
  await hypervisor.report("0");
  await hypervisor.report("1", { api: "http://10.0.0.2:8090" });
  const tokens = hypervisor.guest.to(ALLOW_TX).map(({ headers }) => headers.get("authorization"));
  assertEquals(tokens, ["Bearer master", "Bearer one"], "each by the token that it knows");
  await hypervisor.report("0");
  assertEquals(hypervisor.guest.to(ALLOW_TX).length, 2);
});

guestsTest("one that never answers to that holds nothing up, and is not asked twice at a time", async (hypervisor) => {
  hypervisor.guest.answer = () => "silence";
  const start = hypervisor.time.now;
  await hypervisor.report("0");
  assertEquals(hypervisor.time.now, start);
  await hypervisor.time.pass(300);
  await hypervisor.report("0", { boot: "boot-2" });
  assertEquals(hypervisor.guest.to(ALLOW_TX).length, 1);
  await hypervisor.time.pass(2000);
  await hypervisor.report("0", { boot: "boot-3" });
  assertEquals(hypervisor.guest.to(ALLOW_TX).length, 2);
});

guestsTest("a guest boots no more than five times a second: each time its port is set up anew", async (hypervisor) => {
  await hypervisor.report("0");
  const refused = refusalOf(await hypervisor.report("0", { boot: "boot-2" }));
  assertEquals(refused, "503 boot: the guest on 0 has booted just now: report again in 200 ms");
  assertEquals((await hypervisor.report("1")).status, 200, "others go their way");
  await hypervisor.time.pass(200);
  assertEquals((await hypervisor.report("0", { boot: "boot-2" })).status, 200);
});

guestsTest("a guest whose port cannot be set up is not there yet", async (hypervisor) => {
  hypervisor.bootTrouble = new ApiError(503, "vhost does not answer", undefined, "unreachable");
  assertEquals((await hypervisor.report("0")).status, 503);
  assertEquals(await hypervisor.list(), []);
  hypervisor.bootTrouble = undefined;
  await hypervisor.time.pass(1000);
  assertEquals([(await hypervisor.report("0")).status, hypervisor.booted], [200, [0, 0]]);
});

guestsTest("a guest that has not reported for 15 seconds is gone", async (hypervisor) => {
  await hypervisor.report("0");
  await hypervisor.time.pass(14_900);
  assertEquals((await hypervisor.list()).map(({ seenSecondsAgo }) => seenSecondsAgo), [14.9]);
  assertEquals(hypervisor.guests.find("0")?.boot, "boot-1");
  await hypervisor.time.pass(200);
  assertEquals([await hypervisor.list(), hypervisor.guests.find("0")], [[], undefined]);
});

// Groups and wishes --------------------------------------------------------------------------------------------

guestsTest("the groups of the guest before are left with the first report of a new one, once", async (hypervisor) => {
  await hypervisor.report("0", { first: true });
  await hypervisor.report("0", { first: true });
  assertEquals(hypervisor.left, ["0"]);
  await hypervisor.report("1", { first: false });
  assertEquals(hypervisor.left, ["0"], "a guest that was answered before has its own");
});

guestsTest("if the PF is away they are left later, unless the guest has its own by then", async (hypervisor) => {
  await hypervisor.report("0");
  hypervisor.trouble = AWAY;
  await hypervisor.time.pass(1000);
  await hypervisor.report("0", { first: true, boot: "boot-2" });
  assertEquals(hypervisor.left, []);
  hypervisor.trouble = undefined;
  await hypervisor.report("0", { first: true, boot: "boot-2" });
  assertEquals(hypervisor.left, ["0"]);

  hypervisor.trouble = AWAY;
  await hypervisor.time.pass(1000);
  await hypervisor.report("0", { first: true, boot: "boot-3" });
  hypervisor.trouble = undefined;
  await ask(hypervisor.app, "PATCH", "/api/v1/guests/0/link", { multicast: "none" });
  await hypervisor.report("0", { first: true, boot: "boot-3" });
  assertEquals(hypervisor.left, ["0"], "it has its own groups by now");
});

guestsTest("a wish goes to the PF, and the answer is what the interface is now", async (hypervisor) => {
  await hypervisor.report("vport3", { first: true });
  hypervisor.policy = { ...hypervisor.policy, promisc: true };
  const path = "/api/v1/guests/vport3/link";
  const { status, body } = await ask<Record<string, unknown>>(hypervisor.app, "PATCH", path, { promisc: true });
  assertEquals([status, body.promisc, hypervisor.wishes], [200, true, [["vport3", { promisc: true }]]]);
  hypervisor.trouble = new ApiError(409, "vport 3 may not be promiscuous: it is not trusted", "promisc", "not-trusted");
  const refused = await ask(hypervisor.app, "PATCH", path, { promisc: true });
  assertEquals([refused.status, refused.body.field, refused.body.reason], [409, "promisc", "not-trusted"]);
});

// Reports that are none ----------------------------------------------------------------------------------------

guestsTest("a report that is none is refused by its field, and makes no guest", async (hypervisor) => {
  const reports: [Record<string, unknown>, string][] = [
    [{ api: "ftp://10.0.0.1" }, "api"],
    [{ api: "http://10.0.0.1/api" }, "api"],
    [{ api: "http://user@10.0.0.1" }, "api"],
    [{ api: "http://10.0.0.1?x=1" }, "api"],
    [{ boot: "x".repeat(101) }, "boot"],
    [{ mode: { mode: "root", connected: true } }, "mode.mode"],
    [{ owner: "the hypervisor" }, "owner"],
  ];
  for (const [report, field] of reports) {
    const { status, body } = await hypervisor.report("0", report);
    assertEquals([status, body.field], [422, field], JSON.stringify(report));
  }
  for (const port of ["uplink", "-1", "01", "vport", "1000"]) {
    assertEquals((await hypervisor.report(port)).body.field, "port", port);
  }
  assertEquals([await hypervisor.list(), hypervisor.booted, hypervisor.guest.asked], [[], [], []]);
});

guestsTest("what a guest calls itself can be shown", async (hypervisor) => {
  await hypervisor.report("0", { mode: { ...MODE, plugin: "\u001b[31mred", lastFault: "\u0007" } });
  assertEquals((await hypervisor.list())[0]?.mode, { ...MODE, plugin: "?[31mred", lastFault: "?" });
});
