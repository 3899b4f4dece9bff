/**
 * What a guest may have of its own accord, on a VF and on a vport alike: an address that the PF has not set, VLANs of its
 * trunk list, multicast that the PF allows; everything else needs trust.
 */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import { TestPf } from "../support/test_pf.ts";

const OWN = "02:99:00:00:00:01";
const group = (n: number) => `01:00:5e:00:00:0${n}`;

/** A wish, upon a policy: the policy's fields that it has changed, or who refuses it why. */
interface Case {
  policy?: Record<string, unknown>;
  wish: Record<string, unknown>;
  grants?: Record<string, unknown>;
  refuses?: [field: string, reason: string, detail: string];
}

const CASES: Record<string, Case> = {
  "an address, while the PF has set none": { wish: { mac: OWN }, grants: { mac: OWN, macFixed: false } },
  "another address than the PF has set": {
    policy: { mac: "02:88:00:00:00:01" },
    wish: { mac: OWN },
    refuses: ["mac", "mac-fixed", "may not change its address: the PF has set 02:88:00:00:00:01"],
  },
  "another address than the PF has set, trusted": {
    policy: { mac: "02:88:00:00:00:01", trust: true },
    wish: { mac: OWN },
    grants: { mac: OWN, macFixed: true },
  },
  "the address that the PF has set": { policy: { mac: OWN }, wish: { mac: OWN }, grants: { mac: OWN, macFixed: true } },
  "a VLAN of its trunk list": { policy: { trunk: [5, 7] }, wish: { vlan: 7 }, grants: { vlan: 0 } },
  "a VLAN that is not on its trunk list": {
    policy: { trunk: [5, 7] },
    wish: { vlan: 6 },
    refuses: ["vlan", "vlan-not-allowed", "may not use VLAN 6: its trunk list allows 5, 7, and it is not trusted"],
  },
  "a VLAN without a trunk list": {
    wish: { vlan: 6 },
    refuses: ["vlan", "vlan-not-allowed", "may not use VLAN 6: its trunk list allows none, and it is not trusted"],
  },
  "any VLAN, trusted": { policy: { trust: true }, wish: { vlan: 6 }, grants: { vlan: 0 } },
  "a tag inside the VLAN that the PF has put it into": {
    policy: { vlan: 100, trust: true },
    wish: { vlan: 6 },
    refuses: ["vlan", "vlan-fixed", "may not tag its frames: the PF has put it into VLAN 100"],
  },
  "no tag, wherever it is": { policy: { vlan: 100 }, wish: { vlan: 0 }, grants: { vlan: 100 } },
  "promiscuity": {
    wish: { promisc: true },
    refuses: ["promisc", "not-trusted", "may not be promiscuous: it is not trusted"],
  },
  "promiscuity, trusted": { policy: { trust: true }, wish: { promisc: true }, grants: { promisc: true } },
  "an end of promiscuity": {
    policy: { trust: true, promisc: true },
    wish: { promisc: false },
    grants: { promisc: false },
  },
  "groups, while the PF allows all": { wish: { multicast: [group(1)] }, grants: { guestMulticast: [group(1)] } },
  "groups of those that the PF allows": {
    policy: { multicast: [group(1), group(2)] },
    wish: { multicast: [group(2)] },
    grants: { guestMulticast: [group(2)], multicast: [group(1), group(2)] },
  },
  "another group than the PF allows": {
    policy: { multicast: [group(1)] },
    wish: { multicast: [group(1), group(2)] },
    refuses: [
      "multicast",
      "not-trusted",
      `may not receive other multicast than the PF allows (${group(1)}): it is not trusted`,
    ],
  },
  "all multicast, where the PF allows none": {
    policy: { multicast: "none" },
    wish: { multicast: "all" },
    refuses: [
      "multicast",
      "not-trusted",
      "may not receive other multicast than the PF allows (none): it is not trusted",
    ],
  },
  "all multicast, trusted": {
    policy: { multicast: "none", trust: true },
    wish: { multicast: "all" },
    grants: { guestMulticast: "all", multicast: "none" },
  },
  "no multicast": { wish: { multicast: "none" }, grants: { guestMulticast: "none" } },
  "several things, of which one is refused": {
    wish: { mac: OWN, promisc: true },
    refuses: ["promisc", "not-trusted", "may not be promiscuous: it is not trusted"],
  },
};

for (const [who, path] of [["vf 0", "vfs/0"], ["vport 0", "vports/0"]] as const) {
  Deno.test(`the guest of ${who} has its wish granted, or refused with the reason`, async (t) => {
    for (const [name, { policy = {}, wish, grants, refuses }] of Object.entries(CASES)) {
      await t.step(name, async () => {
        await using pf = await TestPf.start(1);
        await pf.addVport();
        const before = await pf.set<Record<string, unknown>>(path, policy);
        const { status, body } = await pf.ask<Record<string, unknown>>("PATCH", `${path}/guest`, wish);
        const after = await pf.get<Record<string, unknown>>(path);
        if (refuses) {
          const [field, reason, detail] = refuses;
          assertEquals([status, body.field, body.reason, body.detail], [409, field, reason, `${who} ${detail}`]);
          assertEquals(after, before, "a wish is granted whole or not at all");
        } else {
          assertEquals(status, 200, JSON.stringify(body));
          assertEquals(after, { ...before, ...grants });
        }
      });
    }
  });
}

Deno.test("addresses with which others begin are kept for them, though they may not be there yet", async () => {
  await using pf = await TestPf.start(3);
  await pf.addVport();
  const later = (await pf.get("vfs/2")).mac;
  await pf.set("nic", { numVfs: 1 });
  const { status, body } = await pf.ask("PATCH", "vfs/0/guest", { mac: later });
  const detail = (who: string) => `${who} may not have the address ${later}: it is kept for vf 2`;
  assertEquals([status, body.field, body.reason, body.detail], [409, "mac", "mac-fixed", detail("vf 0")]);
  await pf.set("vports/0", { trust: true });
  assertEquals((await pf.ask("PATCH", "vports/0/guest", { mac: later })).body.detail, detail("vport 0"));
  const own = (await pf.get("vfs/0")).mac;
  await pf.set("vfs/0", { mac: OWN, macFixed: false });
  assertEquals((await pf.ask("PATCH", "vfs/0/guest", { mac: own })).status, 200, "its own first address is its own");
});

Deno.test("an address that somebody else has is refused as it is to the PF", async () => {
  await using pf = await TestPf.start(2);
  await pf.set("vfs/1", { mac: OWN });
  const { status, body } = await pf.ask("PATCH", "vfs/0/guest", { mac: OWN });
  assertEquals([status, body.detail], [409, `cannot give vf 0 the address ${OWN}: vf 1 has it without a VLAN`]);
});

Deno.test("wishes that are none", async () => {
  await using pf = await TestPf.start(1);
  for (const [wish, field] of [[{ trust: true }, "trust"], [{ vlan: 4095 }, "vlan"], [{ mac: "x" }, "mac"]] as const) {
    const { status, body } = await pf.ask("PATCH", "vfs/0/guest", wish);
    assertEquals([status, body.field], [422, field]);
  }
});
