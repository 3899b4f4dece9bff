# One image for every service; compose.yaml says which one a container runs, and with what permissions.
# RUN is in exec form throughout, and nothing but Deno is called: a base of Deno alone, without a shell, will do.
FROM denoland/deno:2.9.6
# Another npm registry than npm's own, if you have to: --build-arg NPM_CONFIG_REGISTRY=https://…
ARG NPM_CONFIG_REGISTRY
ENV DENO_DIR=/deno-dir DENO_NO_UPDATE_CHECK=1 NO_COLOR=1
WORKDIR /app
COPY deno.json deno.lock LICENSE ./
RUN ["deno", "install", "--quiet", "--frozen"]
COPY assembly assembly
COPY shared shared
COPY services services
RUN ["deno", "task", "--quiet", "build"]
RUN ["deno", "cache", "--quiet", "--frozen", "--no-check", "services/nic/main.ts", "services/pf/main.ts", "services/vhost/main.ts", "services/vf/main.ts", "services/guest/main.ts", "services/netdev/main.ts", "services/cli/main.ts"]
RUN ["deno", "cache", "--quiet", "--no-config", "--no-lock", "--no-check", "services/up/healthy.ts"]
# A new volume takes over owner and mode of the directory that it is mounted on. The NIC's two are its group's too, since
# it runs as another user where it has an uplink (compose.uplink.yaml).
RUN ["deno", "eval", "--no-config", "for (const dir of ['/run/ringfabric/vf0', '/run/ringfabric/vf1', '/run/ringfabric', '/run/hypervisor', '/run/passthrough', '/run/vf', '/var/lib/ringfabric']) { Deno.mkdirSync(dir, { recursive: true }); Deno.chmodSync(dir, /hypervisor|passthrough/.test(dir) ? 0o770 : 0o700); Deno.chownSync(dir, 1000, 1000); }"]
USER 1000:1000
ENTRYPOINT ["deno", "run", "--quiet", "--no-prompt", "--cached-only", "--frozen"]
