/** What vhost tells the process that stands by for it: parts as they are, and nothing of what is just ending. */
import { assertEquals } from "@std/assert";
import { createEventFd } from "../../shared/os/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import type { Change, VhostMirror } from "../../services/vhost/standby/messages.ts";
import { type Parts, Replica } from "../../services/vhost/standby/replica.ts";

/** A standby that writes down what it is told. */
function standby() {
  const heard: Change[] = [];
  const mirror = {
    isThere: true,
    note(change: Change, fds: readonly Fd[] = []) {
      for (const fd of fds) void fd.number;
      heard.push(change);
    },
    commit() {},
    told: undefined,
  };
  return { mirror: mirror as unknown as VhostMirror, heard: () => heard.splice(0) };
}

Deno.test("a part is told when it differs, and all parts to a standby that has come", () => {
  const { mirror, heard } = standby();
  using kick = createEventFd();
  let parts: Parts = { vring: { value: 1, fds: [kick] } };
  const object = new Replica(mirror).keep("session 1", () => parts);
  const vring = { kind: "part", of: "session 1", name: "vring", value: 1, fds: 1 } as const;
  assertEquals(heard(), [vring]);
  object.tell();
  assertEquals(heard(), []);
  parts = {};
  object.tell();
  assertEquals(heard(), [{ kind: "gone", of: "session 1", name: "vring" }]);
  parts = { vring: { value: 1, fds: [kick] } };
  object.tellAnew();
  assertEquals(heard(), [vring]);
});

Deno.test("a standby that comes while a session is ending is told nothing of it, and of everybody else", () => {
  const { mirror, heard } = standby();
  const replica = new Replica(mirror);
  const socket = createEventFd();
  using other = createEventFd();
  replica.keep("session 1", () => ({ of: { value: "vf0" }, connection: { value: 0, fds: [socket] } }));
  replica.keep("session 2", () => ({ connection: { value: 0, fds: [other] } }));
  heard();
  socket.close();
  replica.tellAll();
  assertEquals(heard(), [{ kind: "part", of: "session 2", name: "connection", value: 0, fds: 1 }]);
});
