/** Sleeping beside a file that is in no epoll instance, and when a port holds back its file's interrupt. */
import { assert, assertEquals } from "@std/assert";
import { Gather } from "../../shared/netdev/gather.ts";
import {
  createEventFd,
  drainEventFd,
  Epoll,
  EPOLLIN,
  eventData,
  eventRoom,
  FileWait,
  signalEventFd,
} from "../../shared/os/mod.ts";

const NUMBER = 7;

Deno.test("a sleep ends by the file, by the epoll instance, by both, or when its time is over", () => {
  using epoll = new Epoll();
  using listed = createEventFd();
  using file = createEventFd();
  epoll.add(listed.number, EPOLLIN, NUMBER);
  const wait = new FileWait(epoll.number, file.number);
  const events = eventRoom();
  for (const [hasEvent, hasFile] of [[false, false], [false, true], [true, false], [true, true]]) {
    if (hasEvent) signalEventFd(listed.number);
    if (hasFile) signalEventFd(file.number);
    const deadlineMs = hasEvent || hasFile ? 10_000 : 1;
    assertEquals(wait.wait(events, deadlineMs), hasEvent ? 1 : 0);
    assertEquals(wait.isReadable, hasFile);
    if (hasEvent) assertEquals(eventData(new DataView(events.buffer), 0), NUMBER);
    drainEventFd(listed.number);
    drainEventFd(file.number);
  }
});

Deno.test("a port sleeps for a moment only after many frames, whatever it had counted before", () => {
  const gather = new Gather();
  assert(!gather.isDue(7), "seven frames");
  assert(gather.isDue(15), "eight more");
  assert(!gather.isDue(15), "none");
  assert(gather.isDue(0xfffffffe), "very many");
  assert(gather.isDue(6), "eight, past 2^32");
  assert(!gather.isDue(13), "seven again");
});
