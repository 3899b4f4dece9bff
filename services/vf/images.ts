/** Which plugin image is to drive a VF. */
import { ApiError } from "../../shared/api/mod.ts";
import type { ModeParts, Shell, VfPlace } from "./handover.ts";
import type { StoredImage } from "./registry.ts";

/** The choice of images, by what the registry has, what the VF presents, and what the guest runs. */
export class Images {
  readonly #peers: ModeParts["peers"];
  readonly #registry: ModeParts["registry"];

  constructor({ peers, registry }: Pick<ModeParts, "peers" | "registry">) {
    this.#peers = peers;
    this.#registry = registry;
  }

  /**
   * The image that is to drive the VF; none for a guest without a shell, whose rings the NIC takes as they are. Where no
   * plugin is named, the one that drives the VF (`driven`) goes on if it may: nobody has asked for another.
   */
  async choose(
    { port, vf }: VfPlace,
    guest: Shell | undefined,
    { plugin, driven }: { plugin: string | undefined; driven: boolean },
  ): Promise<StoredImage | undefined> {
    if (!guest && typeof port === "string") {
      const detail = `the guest of ${port} has no shell that could drive a VF: attach it to a VF's socket instead`;
      throw new ApiError(409, detail, "mode", "incompatible-plugin");
    }
    if (!guest) {
      if (plugin === undefined || plugin === "virtio") return undefined;
      const detail = `the guest of vf ${vf} has no shell that could take plugin ${plugin}: leave the plugin out`;
      throw new ApiError(409, detail, "plugin", "incompatible-plugin");
    }
    const { hardware } = await this.#peers.vf(vf);
    const fits = (image: StoredImage) => hardware === "any" || image.view.hardware === hardware;
    if (plugin === undefined && driven) {
      const running = await this.running(guest);
      if (running && fits(running)) return running;
    }
    const image = await this.#registry.find(plugin ?? (hardware === "any" ? "advanced" : hardware));
    if (!fits(image)) {
      const detail =
        `plugin ${image.view.name} drives ${image.view.hardware} rings: vf ${vf} presents ${hardware} ones`;
      throw new ApiError(409, detail, "plugin", "incompatible-plugin");
    }
    return image;
  }

  /** The image that a guest says it runs, if the registry has it and would inject it now: its key may be revoked. */
  async running({ mode: { plugin, version } }: Shell): Promise<StoredImage | undefined> {
    return await this.#registry.find(`${plugin}@${version}`).catch(() => undefined);
  }
}
