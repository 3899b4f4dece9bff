/**
 * hostile.md 21 for the control thread: a descriptor whose close(2) waits, here a TCP connection that lingers for a minute
 * over data that its peer does not read, holds up nobody but the VF whose front-end sent it.
 */
import { assert, assertEquals } from "@std/assert";
import { REQUEST } from "../../shared/vhost_user/protocol.ts";
import { Bystanders } from "../support/bystanders.ts";
import { openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { TestProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";

const LINGER_SECONDS = 60;

/** Sends the connection as a call descriptor, and closes its own copy before the message is whole: the last one is the service's. */
const ATTACK = `
import socket, struct, sys, time
listener = socket.create_server(("127.0.0.1", 0))
sender = socket.create_connection(listener.getsockname())
peer, _ = listener.accept()
sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, ${LINGER_SECONDS}))
sender.setblocking(False)
try:
    while True: sender.send(bytes(65536))
except BlockingIOError:
    pass
front = socket.socket(socket.AF_UNIX)
front.connect(sys.argv[1])
socket.send_fds(front, [struct.pack("<III", ${REQUEST.VHOST_USER_SET_VRING_CALL}, 1, 8)], [sender.fileno()])
sender.close()
front.sendall(struct.pack("<Q", 0))
print("refused" if front.recv(1) == b"" else "answered", flush=True)
time.sleep(3600)
`;

Deno.test("a descriptor that cannot be closed at once holds up its sender's VF alone", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  const { nic = 0, vhost = 0 } = fabric.pids();
  const before = openDescriptors(nic, vhost);
  const { socket } = fabric.vf(2);
  {
    await using evil = new TestProcess("attacker", "python3", ["-c", ATTACK, socket]);
    await evil.expect(/refused/);
    await bystanders.check();
    assert((await fabric.get("/api/v1/nic")).link !== undefined);
    const { lastDetach } = await fabric.get("/api/v1/vfs/2");
    assertEquals(/not an eventfd/.test(lastDetach), true, lastDetach);
    // The next front-end of this VF waits until the descriptor is gone: so nobody can pile them up.
    const next = FrontEnd.connect(socket);
    await next.closedByBackEnd();
    await next[Symbol.asyncDispose]();
    await bystanders.check();
  }
  // With the attacker's end of the connection closed there is nothing left to linger for.
  await until("the VF to be served again", async () => {
    const front = FrontEnd.connect(socket);
    try {
      return (await front.ask("VHOST_USER_GET_FEATURES")) > 0n;
    } catch {
      return false;
    } finally {
      await front[Symbol.asyncDispose]();
    }
  });
  await untilNoMoreDescriptors(before);
});
