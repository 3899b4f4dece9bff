/** Where the bytes of a slot with a guest's buffer are, and how they come to where they belong. */
import { ADV_DIRECT_STAT_MARK } from "../../../shared/layout/advanced.ts";
import { BAD_DESCRIPTOR, DIRECT_HEADER_AT, DIRECT_HOST_BYTES } from "../../../shared/layout/nic.ts";
import { copyBytes } from "../../lib/copy.ts";
import { failQueue } from "../queue/interrupts.ts";
import { spend, UNITS_BYTES_SHIFT } from "../schedule/cost.ts";
import { hostBuffer, postedBytes, rxBook, stateOf } from "./books.ts";
import { apartOf, isSound, lengthOf } from "./host.ts";

/** Has the bytes of a slot be in the guest's buffer. False if its descriptor is not sound: the queue stops then. */
@inline
export function place(rx: usize, slot: u32, done: u64): bool {
  const book = rxBook(stateOf(rx), slot);
  const marked = (<u32> done & ADV_DIRECT_STAT_MARK) != 0;
  if (!isSound(done, marked ? postedBytes(book) : DIRECT_HOST_BYTES)) {
    failQueue(rx, BAD_DESCRIPTOR, slot);
    return false;
  }
  const buffer: usize = load<u32>(book);
  const apart = apartOf(done);
  if (marked && apart == 0) return true;
  const host = hostBuffer(rx, slot);
  const length = lengthOf(done);
  if (apart != 0) copyBytes(buffer, host + DIRECT_HEADER_AT, apart);
  if (!marked) copyBytes(buffer + apart, host + apart, length - apart);
  spend((marked ? apart : length) >> UNITS_BYTES_SHIFT);
  return true;
}
