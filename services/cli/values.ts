/**
 * The words of `ip link set DEV vf N …` as fields of the API: `vlan 100 qos 3 proto 802.1ad spoofchk on trust off state
 * auto max_tx_rate 100`, and those of `ethtool -C`. The API's own names are understood too.
 */
import { numberList } from "../../shared/api/mod.ts";

/** What a person asked for cannot be; the message says what can. */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}

/** What a person typed is not understood, so nothing was asked of the fabric; the message says what would be. */
export class NotUnderstood extends UsageError {
  override readonly name = "NotUnderstood";
}

const PROTOCOLS = ["802.1Q", "802.1ad"];

/** What was typed, so that it is seen if it is nothing. */
export function shown(text: string): string {
  return text === "" ? '""' : text;
}

type Reader = (text: string, key: string) => unknown;

const number: Reader = (text, key) => {
  if (!/^-?\d+$/.test(text)) throw new NotUnderstood(`${key} ${shown(text)}: it is a whole number`);
  return Number(text);
};
const onOff: Reader = (text, key) => {
  if (["on", "true", "yes"].includes(text)) return true;
  if (["off", "false", "no"].includes(text)) return false;
  throw new NotUnderstood(`${key} ${text}: it is on or off`);
};
const text: Reader = (value) => value;
/** All zero is no address: the one that it begins with, as ixgbe clears an administered one. */
const address: Reader = (value) => /^(00[:-]){5}00$/.test(value) ? null : value;
/** `ip` does not mind capitals. */
const protocol: Reader = (value) => PROTOCOLS.find((name) => name.toLowerCase() === value.toLowerCase()) ?? value;
/** `10,20-22` or `none`. */
export function readVlans(value: string, key: string): number[] {
  if (value === "none") return [];
  const list = numberList(value);
  if (!list || list.some((vid) => vid > 4095)) {
    throw new NotUnderstood(`${key} ${shown(value)}: it is a list such as 10,20-22, or none`);
  }
  return list;
}

/** `A,B` or `none`. */
const addressList: Reader = (value) => value === "none" ? [] : value.split(",");
/** `A,B/N` or `all`. */
const prefixList: Reader = (value, key) => {
  if (value === "" || value === "none") {
    throw new NotUnderstood(
      `${key} ${shown(value)}: say addresses such as 10.0.0.5,fe80::/10, or all to check nothing`,
    );
  }
  return value === "all" ? [] : value.split(",");
};
const groups: Reader = (value) => ["all", "none"].includes(value) ? value : value.split(",");
const wishedGroups: Reader = (value, key) => value === "unset" ? null : groups(value, key);

/** `in:3`, `out:uplink`, `both:3` (of a vport `both:vport3`) or `none`. */
export const mirror: Reader = (value) => value === "none" ? null : value;

const KEYS = new Map<string, [string, Reader]>(Object.entries({
  mac: ["mac", address],
  vlan: ["vlan", number],
  qos: ["qos", number],
  proto: ["vlanProto", protocol],
  trunk: ["trunk", readVlans],
  native_vlan: ["nativeVlan", number],
  allowed_macs: ["allowedMacs", addressList],
  allowed_ips: ["allowedIps", prefixList],
  spoofchk: ["spoofCheck", onOff],
  trust: ["trust", onOff],
  promisc: ["promisc", onOff],
  state: ["linkState", text],
  min_tx_rate: ["minTxRate", number],
  max_tx_rate: ["maxTxRate", number],
  max_broadcast_rate: ["maxBroadcastRate", number],
  multicast: ["multicast", groups],
  guest_multicast: ["guestMulticast", wishedGroups],
  mtu: ["mtu", number],
  queue_pairs: ["queuePairs", number],
  "adaptive-rx": ["adaptiveRx", onOff],
  "rx-usecs": ["rxUsecs", number],
  "rx-frames": ["rxFrames", number],
  "adaptive-tx": ["adaptiveTx", onOff],
  "tx-usecs": ["txUsecs", number],
  "tx-frames": ["txFrames", number],
  mac_fixed: ["macFixed", onOff],
  hardware: ["hardware", text],
  mirror: ["mirror", mirror],
}));
const ALIASES = new Map<string, string>([
  ...[...KEYS].map(([key, [field]]): [string, string] => [field, key]),
  ["rate", "max_tx_rate"],
  ["address", "mac"],
]);

/** The keys that can be set, for help texts. */
export const SETTABLE = [...KEYS.keys()].join(" ");
/** Of those, the ones that a vport has: which rings a VF presents is the VF's own. */
export const SETTABLE_VPORT = [...KEYS.keys()].filter((key) => key !== "hardware").join(" ");

/** The API's names as the words that a person types here. */
const WORDS = new Map(
  [
    ...[...KEYS].map(([word, [field]]): [string, string] => [field, word]),
    ["uplinkTrunk", "uplink_trunk"],
    ["uplinkNativeVlan", "uplink_native_vlan"],
    ["pfMirror", "pf_mirror"],
    ["numVfs", "numvfs"],
    ["switchMode", "mode"],
    ["dataPath", "--data-path"],
  ],
);

/** What the API says, in the words that were typed. */
export function inWords(detail: string): string {
  return detail.replaceAll(/\b[a-z]+[A-Z]\w*\b/g, (name) => WORDS.get(name) ?? name);
}

/** `key value …` as the body of a PATCH, with what `ip link` means by it; `which` stands before them, if anything does. */
export function parsePairs(words: readonly string[], which?: string): Record<string, unknown> {
  if (which !== undefined && KEYS.has(ALIASES.get(which) ?? which)) {
    throw new NotUnderstood(`${which} of whom? Say a number first, such as: 0 ${which} ${shown(words[0] ?? "")}`);
  }
  if (words.length === 0 || words.length % 2 !== 0) {
    throw new NotUnderstood(`say key and value, such as: vlan 100, and lists with commas (keys: ${SETTABLE})`);
  }
  const patch: Record<string, unknown> = {};
  for (let i = 0; i < words.length; i += 2) {
    const [word, value] = [words[i] ?? "", words[i + 1] ?? ""];
    const entry = KEYS.get(ALIASES.get(word) ?? word);
    if (!entry) throw new NotUnderstood(`${shown(word)} cannot be set; keys: ${SETTABLE}`);
    if (entry[0] in patch) throw new NotUnderstood(`${word} is said twice: say it once`);
    patch[entry[0]] = entry[1](value, word);
  }
  // As with `ip link set vf N vlan V`: what is not said of a VLAN is not kept from the one before.
  if ("vlan" in patch) return { qos: 0, vlanProto: "802.1Q", ...patch };
  return patch;
}

/** The number of one VF or vport, as it was typed. */
export function oneId(text: string): number {
  if (!/^\d{1,4}$/.test(text)) throw new NotUnderstood(`"${text}" is no number of a VF or vport`);
  return Number(text);
}

/** `3`, `2-5`, `0,2-3`; undefined: `all`. */
export function parseIds(text: string): number[] | undefined {
  if (text === "all") return undefined;
  const ids = numberList(text);
  if (!ids) throw new NotUnderstood(`${shown(text)}: say a number, a list such as 0,2-3, or all`);
  if (new Set(ids).size !== ids.length) throw new NotUnderstood(`${text} names one of them twice`);
  return ids;
}

/** A list of VLANs as a person writes it: `10,20-22`. */
export function formatVlans(list: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const vid of list) {
    const last = runs.at(-1);
    if (last && last[1] === vid - 1) last[1] = vid;
    else runs.push([vid, vid]);
  }
  return runs.map(([from, to]) => from === to ? `${from}` : `${from}-${to}`).join(",") || "none";
}
