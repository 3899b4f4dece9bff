/** The filter language of captures: what each filter finds among a few frames, in the engine, and what is said to who mistypes. */
import { assertEquals, assertThrows } from "@std/assert";
import { ApiError } from "../../shared/api/mod.ts";
import { compileFilter, FilterError } from "../../shared/pcap/mod.ts";
import { CAPTURE_STEP_STRIDE } from "../../shared/layout/nic.ts";
import { asked, rigCaptures, taken } from "../support/capture_rig.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { filterFrames, VLAN } from "../support/filter_frames.ts";

const FRAMES = filterFrames(rigMac(0), rigMac(1));

/** Which frames a filter finds at VF 0's port. */
function found(filter: string, ports = "0"): string {
  const rig = new EngineRig(2, { 0: { spoofCheck: true, trunk: [0, VLAN] }, 1: { trunk: [0, VLAN] } });
  const guests = [0, 1].map((vf) => rig.attach(vf, { queueSize: 64 }));
  for (const guest of guests) guest.fill(32);
  const capture = rigCaptures(rig).captures.open(asked(`ports=${ports}&${new URLSearchParams({ filter })}`, 2));
  let names = "";
  for (const [name, bytes] of Object.entries(FRAMES)) {
    guests[0]?.send([bytes]);
    rig.run();
    names += name.repeat(taken(capture).length);
  }
  return names;
}

/** `6` comes first: a digit is a key that goes before all others. */
const FOUND: Record<string, string> = {
  "": "6tufinavmxsd",
  "tcp": "6tv",
  "TCP PORT 22": "6tv",
  "dst port 22": "tv",
  "src port 22": "6",
  "tcp src port 22": "6",
  "udp port 53": "u",
  "port 53 or port 1000": "tu",
  "udp": "uf",
  "icmp": "i",
  "icmp6": "n",
  "ip": "tufiv",
  "ip6": "6n",
  "arp": "a",
  "host 10.0.0.1": "tuav",
  "ip host 10.0.0.1": "tuv",
  "arp host 10.0.0.9": "a",
  "src host 10.0.0.1 and not arp": "tuv",
  "dst host 10.0.0.2": "tiv",
  "net 10.1.0.0/16": "uf",
  "net 10.0.0.0/7": "tufiav",
  "net 0.0.0.0/0": "tufiav",
  "src net 192.168.0.0/16": "i",
  "host fe80::3": "n",
  "dst net fe80::/10": "6n",
  "ip6 host fe80::2": "6",
  "vlan": "vd",
  "vlan 7": "v",
  "not vlan": "6tufinamxs",
  "ether host 02:99:99:99:99:99": "s",
  "ether src 2:0:0:0:0:1 and multicast": "am",
  "ether dst 01:00:5e:00:00:05": "m",
  "broadcast": "a",
  "multicast and not broadcast": "m",
  "dropped": "sd",
  "dropped tx_spoofed": "s",
  "dropped tx_vlan_denied or icmp": "id",
  "outbound": "6tufinavmxsd",
  "inbound": "",
  "vf 0 && ! (tcp || udp)": "inamxsd",
  "not not arp": "a",
  // As in libpcap's language, `and` does not come before `or`.
  "arp or icmp and ip": "i",
  "arp or (icmp and ip)": "ia",
};

for (const [filter, names] of Object.entries(FOUND)) {
  Deno.test(`filter "${filter}"`, () => assertEquals(found(filter), names));
}

Deno.test("a filter may tell ports from each other", () => {
  assertEquals(found("vf 1 and inbound and tcp", "0,1"), "6tv");
  assertEquals(found("vf 0 or vf 1", "0,1"), "66ttuuffiinnaavvmmxxsd");
});

Deno.test("whoever mistypes is told where, and what there is", () => {
  const refusals: Record<string, string> = {
    "tcp prot 80": 'at character 5: "prot" follows a whole expression: write and, or',
    "tcp and": "at character 8: here a word of the filter language is missing",
    "(tcp": 'at character 5: here ")" is missing',
    "host": "at character 5: here an address is missing",
    "host 10.0.0": 'at character 6: "10.0.0" is no IP address such as 10.0.0.1 or fe80::1',
    "net 10.0.0.0/33": 'at character 5: "10.0.0.0/33" is no prefix such as 10.0.0.0/8 or fe80::/10',
    "ip6 host 10.0.0.1": "at character 10: 10.0.0.1 is no address of ip6",
    "port 65536": 'at character 6: "65536" is no port: 0–65535',
    "src 10.0.0.1": "at character 5: here host, net or port is missing behind src",
    "vlan 4096": 'at character 6: "4096" is no VLAN: 0–4095',
    "vf 2": "at character 1: there is no vf 2 here",
    "vport 0": "at character 1: there is no vport 0 here",
    "ether 02:00:00:00:00:01": "at character 7: here host, src or dst is missing behind ether",
    "ether host 1": 'at character 12: "1" is no Ethernet address such as 52:54:00:00:00:01',
    "dropped nothing": 'at character 9: "nothing" follows a whole expression: write and, or',
    [`${"(".repeat(40)}tcp`]: "at character 33: more than 32 levels",
    [`${"arp or ".repeat(200)}arp`]: "a filter has up to 1024 characters",
  };
  for (const [filter, message] of Object.entries(refusals)) {
    const error = assertThrows(() => compileFilter(filter, "vf", 2), FilterError, undefined, filter);
    assertEquals(error.message, message);
  }
  const odd = assertThrows(() => compileFilter("frob", "vf", 2), FilterError).message;
  assertEquals(odd.startsWith('at character 1: "frob" is no word of the filter language: host, net, port'), true);
  const refused = assertThrows(() => asked("filter=frob", 2), ApiError);
  assertEquals([refused.status, refused.field], [422, "filter"]);
});

Deno.test("however a filter is written, each step leads to a later one, and there are not more than fit", () => {
  const many = Array.from({ length: 70 }, (_, i) => `net ${i}.0.0.0/8`).join(" or ");
  const steps = compileFilter(`not (${many.slice(0, 1000).replace(/ or[^/]*$/, "")})`, "vf", 1);
  const view = new DataView(steps.buffer);
  for (let at = 0; at < steps.length; at += CAPTURE_STEP_STRIDE) {
    for (const field of [4, 6]) {
      const next = view.getUint16(at + field, true);
      assertEquals(
        next > at / CAPTURE_STEP_STRIDE && (next < steps.length / CAPTURE_STEP_STRIDE || next >= 0xfffe),
        true,
      );
    }
  }
  const dear = Array.from({ length: 60 }, () => "host fe80::1").join(" or ");
  const error = assertThrows(() => compileFilter(dear, "vf", 1), FilterError);
  assertEquals(error.message, "it takes 540 comparisons, and a filter may take 512");
});
