# balloond in a container: docs/fleet.md says what it has to be given. `docker build --tag balloond .`
FROM node:24-trixie-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ gcc make python3
WORKDIR /src
COPY . .
# Scripts of dependencies would build what `install` builds, after fetching headers that are here.
RUN npm ci --ignore-scripts --no-audit --no-fund && npm run install
RUN npm run build
RUN DESTDIR=/image sh scripts/install-system

FROM node:24-trixie-slim
COPY --from=build /image/usr/lib/balloond /usr/lib/balloond
RUN ln -s ../lib/balloond/out/bin/balloond.js /usr/sbin/balloond \
  && ln -s ../lib/balloond/out/bin/balloonctl.js /usr/bin/balloonctl \
  && install -d -o node -g node /run/balloond
# Enough for VMMs of the same user. To look at those of others takes capabilities, which runtimes give to root alone.
USER node
HEALTHCHECK --interval=30s --timeout=10s CMD ["balloonctl", "list"]
# Nobody else holds what VMs handed over when the daemon ends.
ENTRYPOINT ["balloond"]
CMD ["--supervise", "--socket-path", "/run/balloond/balloond.sock"]
