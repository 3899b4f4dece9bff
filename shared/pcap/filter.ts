/**
 * The filter language of captures: a subset of pcap-filter's (libpcap) with the same meaning, and words for what only a
 * fabric knows. What is read here becomes the steps that the engine takes (filter_steps.ts). docs/captures.md lists the
 * words.
 */
import ipaddr from "ipaddr.js";

/** Longest filter, in characters, and how deep its parentheses may go. */
const TEXT_MAX = 1024;
const DEPTH_MAX = 32;

/** What of a frame is compared: where it is counted from. */
export type Base = "frame" | "network" | "transport" | "meta";

/** A comparison of up to four bytes, as they lie in the frame, under a mask. */
export interface Test {
  kind: "test";
  base: Base;
  offset: number;
  mask: readonly number[];
  value: readonly number[];
}

/** A filter as a tree. */
export type Expression =
  | Test
  | { kind: "and" | "or"; parts: readonly Expression[] }
  | { kind: "not"; of: Expression };

/** A filter that cannot be read, and where. */
export class FilterError extends Error {
  override readonly name = "FilterError";
}

/** What a filter may name that is not its own to know. */
export interface Names {
  /** The pool of a VF, or `undefined`. */
  poolOf(port: string): number | undefined;
  /** The number of a drop counter, or `undefined`. */
  dropOf(counter: string): number | undefined;
  /** Places in what is known of a frame beside its bytes, and the values for directions. */
  meta: Record<"pool" | "direction" | "dropped" | "type" | "vlan" | "protocol" | "ports", number>;
  directions: Record<"inbound" | "outbound", number>;
  noVlan: number;
}

const PROTOCOLS = { icmp: 1, tcp: 6, udp: 17, icmp6: 58, sctp: 132 } as const;
const TYPES = { ip: [0x08, 0x00], arp: [0x08, 0x06], ip6: [0x86, 0xdd] } as const;
const WORDS = "host, net, port, ether host, vlan, arp, ip, ip6, tcp, udp, sctp, icmp, icmp6, broadcast, multicast, " +
  "inbound, outbound, dropped, vf N, vport N, pf, uplink, and, or, not, src, dst, parentheses";

const and = (...parts: Expression[]): Expression => ({ kind: "and", parts });
const or = (...parts: Expression[]): Expression => ({ kind: "or", parts });
const not = (of: Expression): Expression => ({ kind: "not", of });

/** Bytes at a place, as tests of four at the most. */
function bytesAt(base: Base, offset: number, value: readonly number[], mask = value.map(() => 0xff)): Expression {
  const tests: Expression[] = [];
  for (let at = 0; at < value.length; at += 4) {
    const part = mask.slice(at, at + 4);
    if (part.every((byte) => byte === 0)) continue;
    const masked = value.slice(at, at + 4).map((byte, i) => byte & (part[i] ?? 0));
    tests.push({ kind: "test", base, offset: offset + at, mask: part, value: masked });
  }
  return tests.length > 0 ? and(...tests) : { kind: "test", base: "meta", offset: 0, mask: [0], value: [0] };
}

/** A number as it is loaded. */
function word(n: number): number[] {
  return [n & 0xff, (n >> 8) & 0xff, (n >> 16) & 0xff, (n >>> 24) & 0xff];
}

interface Token {
  text: string;
  at: number;
}

/** Reads a filter. */
class Parser {
  readonly #tokens: Token[];
  readonly #names: Names;
  readonly #end: number;
  #next = 0;
  #depth = 0;

  constructor(text: string, names: Names) {
    if (text.length > TEXT_MAX) throw new FilterError(`a filter has up to ${TEXT_MAX} characters`);
    this.#tokens = [...text.matchAll(/&&|\|\||[()!]|[^\s()!&|]+|\S/g)].map(({ 0: word, index }) => ({
      text: word.toLowerCase(),
      at: index + 1,
    }));
    this.#names = names;
    this.#end = text.length + 1;
  }

  read(): Expression {
    const found = this.#alternatives();
    const left = this.#tokens[this.#next];
    if (left) throw this.#fault(left, `"${left.text}" follows a whole expression: write and, or`);
    return found;
  }

  #fault(token: Token | undefined, what: string): FilterError {
    return new FilterError(`at character ${token?.at ?? this.#end}: ${what}`);
  }

  #peek(): string {
    return this.#tokens[this.#next]?.text ?? "";
  }

  #take(...words: string[]): string | undefined {
    const text = this.#peek();
    if (!words.includes(text)) return undefined;
    this.#next++;
    return text;
  }

  #value(what: string): Token {
    const token = this.#tokens[this.#next++];
    if (!token) throw this.#fault(token, `here ${what} is missing`);
    return token;
  }

  /** As in libpcap's language, `and` and `or` have one precedence, and are read from left to right. */
  #alternatives(): Expression {
    let left = this.#factor();
    for (let how = this.#join(); how !== undefined; how = this.#join()) {
      const right = this.#factor();
      left = how === "and" ? and(left, right) : or(left, right);
    }
    return left;
  }

  #join(): "and" | "or" | undefined {
    const found = this.#take("and", "&&", "or", "||");
    return found === undefined ? undefined : found === "and" || found === "&&" ? "and" : "or";
  }

  #factor(): Expression {
    if (++this.#depth > DEPTH_MAX) throw this.#fault(this.#tokens[this.#next], `more than ${DEPTH_MAX} levels`);
    try {
      if (this.#take("not", "!") !== undefined) return not(this.#factor());
      if (this.#take("(") === undefined) return this.#primitive();
      const inner = this.#alternatives();
      if (this.#take(")") === undefined) throw this.#fault(this.#tokens[this.#next], 'here ")" is missing');
      return inner;
    } finally {
      this.#depth--;
    }
  }

  #primitive(): Expression {
    const token = this.#value("a word of the filter language");
    const { text } = token;
    const { meta, directions } = this.#names;
    if (text === "ether") return this.#ether();
    if (text === "vlan") return this.#vlan();
    if (text === "dropped") return this.#dropped();
    if (text === "vf" || text === "vport") {
      return this.#port(token, `${text} ${this.#value(`a ${text}'s number`).text}`);
    }
    if (text === "uplink" || text === "pf") return this.#port(token, text);
    if (text === "inbound" || text === "outbound") return bytesAt("meta", meta.direction, word(directions[text]));
    if (text === "broadcast") return bytesAt("frame", 0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    if (text === "multicast") return bytesAt("frame", 0, [1], [1]);
    if (Object.hasOwn(TYPES, text)) return this.#typed(text as keyof typeof TYPES);
    if (Object.hasOwn(PROTOCOLS, text)) return this.#transport(text as keyof typeof PROTOCOLS);
    const found = this.#address(token, undefined);
    if (found) return found;
    throw this.#fault(token, `"${text}" is no word of the filter language: ${WORDS}`);
  }

  #type(type: keyof typeof TYPES): Expression {
    return bytesAt("meta", this.#names.meta.type, [...TYPES[type], 0, 0]);
  }

  /** `ip`, or `ip host A` and the like. */
  #typed(type: keyof typeof TYPES): Expression {
    const next = this.#tokens[this.#next];
    if (!next || !["src", "dst", "host", "net"].includes(next.text)) return this.#type(type);
    this.#next++;
    return and(this.#type(type), this.#address(next, type) ?? this.#type(type));
  }

  /** `tcp`, or `tcp port N` and the like. */
  #transport(name: keyof typeof PROTOCOLS): Expression {
    const protocol = bytesAt("meta", this.#names.meta.protocol, word(PROTOCOLS[name]));
    const next = this.#tokens[this.#next];
    const [after, behind] = [next?.text ?? "", this.#tokens[this.#next + 1]?.text];
    if (after !== "port" && !(["src", "dst"].includes(after) && behind === "port")) return protocol;
    this.#next++;
    return and(protocol, this.#address(next as Token, undefined) as Expression);
  }

  /** `[src|dst] host A`, `[src|dst] net P`, `[src|dst] port N`, beginning with `token`. */
  #address(token: Token, type: keyof typeof TYPES | undefined): Expression | undefined {
    const side = token.text === "src" || token.text === "dst" ? token.text : undefined;
    const kind = side === undefined ? token : this.#value("host, net or port");
    if (kind.text === "host") return this.#prefix(this.#value("an address"), side, false, type);
    if (kind.text === "net") return this.#prefix(this.#value("a prefix such as 10.0.0.0/8"), side, true, type);
    if (kind.text === "port" && type === undefined) return this.#portNumber(this.#value("a port"), side);
    if (side === undefined) return undefined;
    throw this.#fault(kind, `here host, net or port is missing behind ${side}`);
  }

  #prefix(token: Token, side: "src" | "dst" | undefined, isNet: boolean, type?: keyof typeof TYPES): Expression {
    const [address, bits] = readPrefix(token.text, isNet) ?? [undefined, 0];
    if (!address) {
      const such = isNet ? "prefix such as 10.0.0.0/8 or fe80::/10" : "IP address such as 10.0.0.1 or fe80::1";
      throw this.#fault(token, `"${token.text}" is no ${such}`);
    }
    const mask = address.map((_, i) => 0xff & ~(0xff >> Math.min(8, Math.max(0, bits - i * 8))));
    const at = (src: number, dst: number) =>
      or(
        ...(side === "dst" ? [] : [bytesAt("network", src, address, mask)]),
        ...(side === "src" ? [] : [bytesAt("network", dst, address, mask)]),
      );
    if (address.length === 16) {
      if (type !== undefined && type !== "ip6") throw this.#fault(token, `${token.text} is no address of ${type}`);
      return and(this.#type("ip6"), at(8, 24));
    }
    if (type === "ip6") throw this.#fault(token, `${token.text} is no address of ip6`);
    const ip = and(this.#type("ip"), at(12, 16));
    const arp = and(this.#type("arp"), at(14, 24));
    return type === "ip" ? ip : type === "arp" ? arp : or(ip, arp);
  }

  #portNumber(token: Token, side: "src" | "dst" | undefined): Expression {
    const port = Number(token.text);
    if (!/^\d{1,5}$/.test(token.text) || port > 65535) throw this.#fault(token, `"${token.text}" is no port: 0–65535`);
    const bytes = [port >> 8, port & 0xff];
    return and(
      bytesAt("meta", this.#names.meta.ports, word(1)),
      or(
        ...(side === "dst" ? [] : [bytesAt("transport", 0, bytes)]),
        ...(side === "src" ? [] : [bytesAt("transport", 2, bytes)]),
      ),
    );
  }

  #ether(): Expression {
    const side = this.#take("src", "dst");
    if (this.#take("host") === undefined && side === undefined) {
      throw this.#fault(this.#tokens[this.#next], "here host, src or dst is missing behind ether");
    }
    const token = this.#value("an Ethernet address");
    if (!/^([0-9a-f]{1,2}:){5}[0-9a-f]{1,2}$/.test(token.text)) {
      throw this.#fault(token, `"${token.text}" is no Ethernet address such as 52:54:00:00:00:01`);
    }
    const bytes = token.text.split(":").map((byte) => parseInt(byte, 16));
    return or(
      ...(side === "src" ? [] : [bytesAt("frame", 0, bytes)]),
      ...(side === "dst" ? [] : [bytesAt("frame", 6, bytes)]),
    );
  }

  #vlan(): Expression {
    const { meta, noVlan } = this.#names;
    const token = this.#tokens[this.#next];
    if (!token || !/^\d/.test(token.text)) return not(bytesAt("meta", meta.vlan, word(noVlan)));
    this.#next++;
    if (!/^\d{1,4}$/.test(token.text) || Number(token.text) > 4095) {
      throw this.#fault(token, `"${token.text}" is no VLAN: 0–4095`);
    }
    return bytesAt("meta", meta.vlan, word(Number(token.text)));
  }

  #dropped(): Expression {
    const { meta } = this.#names;
    const counter = this.#names.dropOf(this.#peek());
    if (counter === undefined) return not(bytesAt("meta", meta.dropped, word(0)));
    this.#next++;
    return bytesAt("meta", meta.dropped, word(counter));
  }

  #port(token: Token, name: string): Expression {
    const pool = this.#names.poolOf(name);
    if (pool === undefined) throw this.#fault(token, `there is no ${name} here`);
    return bytesAt("meta", this.#names.meta.pool, word(pool));
  }
}

/** An address and its bits; `undefined` if it is none. What is short for one is more often a mistake. */
function readPrefix(text: string, isNet: boolean): [number[], number] | undefined {
  const [host = "", bits, more] = text.split("/");
  const isV6 = host.includes(":");
  if (more !== undefined || (bits !== undefined) !== isNet) return undefined;
  if (isV6 ? !ipaddr.IPv6.isValid(host) : !ipaddr.IPv4.isValidFourPartDecimal(host)) return undefined;
  const address = ipaddr.parse(host).toByteArray();
  const length = bits === undefined ? address.length * 8 : Number(bits);
  return /^\d{1,3}$/.test(bits ?? "0") && length <= address.length * 8 ? [address, length] : undefined;
}

/** Reads a filter. Throws FilterError, which says where and why it cannot be. */
export function parseFilter(text: string, names: Names): Expression {
  return new Parser(text, names).read();
}
