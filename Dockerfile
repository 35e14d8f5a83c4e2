# balloond in a container: docs/fleet.md says what it has to be given. `docker build --tag balloond .`
FROM node:24-trixie-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY . .
RUN npm ci --no-audit --no-fund && npm run build
RUN DESTDIR=/image sh scripts/install-system

FROM node:24-trixie-slim
COPY --from=build /image /
RUN install -d -o node -g node /run/balloond
# Enough for VMMs of the same user. To look at those of others takes capabilities, which runtimes give to root alone.
USER node
HEALTHCHECK --interval=30s --timeout=10s CMD ["balloonctl", "list"]
# Nobody else holds what VMs handed over when the daemon ends.
ENTRYPOINT ["balloond"]
CMD ["--supervise", "--socket-path", "/run/balloond/balloond.sock"]
