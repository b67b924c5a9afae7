# Franker in a container: small, not root, everything from its environment. See docs/containers.md.
#
#   docker build --tag franker .
#
# BASE is a Debian with apt (12 is what the tests run on); BUILD_BASE another one to build on, for
# those whose package indexes need settings that the finished image shall not hold.
ARG BASE=debian:bookworm-slim
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends python3 python3-venv ca-certificates >/dev/null
# The libraries change less often than our own files: a layer of their own.
WORKDIR /src
COPY pyproject.toml README.md ./
RUN python3 -m venv /opt/franker \
    && mkdir proxy worker && touch proxy/__init__.py worker/__init__.py \
    && /opt/franker/bin/pip install --quiet --no-cache-dir --no-compile '.[sandbox]'
COPY proxy proxy
COPY worker worker
RUN /opt/franker/bin/pip install --quiet --no-cache-dir --no-compile --no-deps --force-reinstall . \
    && /opt/franker/bin/pip uninstall --quiet --yes setuptools pip \
    && python3 -m compileall -q -j 0 /opt/franker/lib

FROM ${BASE}
# 10025: a number of its own, so that no user of the host is meant by chance.
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends python3 ca-certificates redis-server tini >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/* /etc/redis \
    && groupadd --system --gid 10025 franker \
    && useradd --system --uid 10025 --gid 10025 --home-dir /var/lib/franker --no-create-home franker \
    && install -d -m 0700 -o franker -g franker /var/lib/franker
COPY --from=build /opt/franker /opt/franker
COPY containers/readyz /usr/local/bin/readyz
# A container's own loopback leads nowhere, so it listens on all its addresses. Who may submit is
# another matter: listen.allow stays at this host, the container itself, until it is widened.
ENV PATH=/opt/franker/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FRANKER_DATA_DIR=/var/lib/franker \
    FRANKER_DROP__FOLDER=/var/lib/franker/drop \
    FRANKER_LISTEN__SMTP=0.0.0.0:25 \
    FRANKER_LISTEN__HTTP=0.0.0.0:9587 \
    FRANKER_WORKER__HTTP=0.0.0.0:9588
USER 10025:10025
WORKDIR /var/lib/franker
VOLUME /var/lib/franker
EXPOSE 25 9587 9588
STOPSIGNAL SIGTERM
# Of `franker run`: mail can be kept, and mail can leave. A part alone has its own (compose file).
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=2 CMD ["readyz", "9587", "9588"]
# As process 1 it hands signals on, also those that come before Franker has asked for them.
ENTRYPOINT ["/usr/bin/tini", "--", "franker"]
CMD ["run"]
