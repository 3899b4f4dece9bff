/** A refusal at the device socket. It stands alone so that engine code can refuse without loading the schemas. */

/** The NIC refused a request, with a code that programs can tell apart. */
export class DeviceRefusal extends Error {
  override readonly name = "DeviceRefusal";
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}
