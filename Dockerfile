# The image of every Airflow component and of pg_receivewal: the locked packages, this project, and PostgreSQL 15, whose
# server the restoration drill starts on the worker. Nothing secret is in it: settings and connections come at run time.
#
#   docker build --target airflow --tag pv-backup:3.3.2 .
#
# Not built on apache/airflow: that image brings its own set of packages, and ours are locked with their hashes.

FROM python:3.11.14-slim-bookworm AS packages
COPY requirements.txt /tmp/requirements.txt
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement /tmp/requirements.txt


FROM python:3.11.14-slim-bookworm AS airflow

# Two steps: the server's package would make and start a cluster, unless postgresql-common is told not to.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-common=248* \
    && sed -ri 's/^#? *create_main_cluster .*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install --yes --no-install-recommends postgresql-15=15.* tini=0.19.* curl=7.88.* \
    && rm -rf /var/lib/apt/lists/*

# What the drill's server needs that the source has: its locales, and its extensions as Debian packages, say
# --build-arg EXTENSIONS="postgresql-15-postgis-3=3.*".
ARG LOCALES="en_US.UTF-8 fr_FR.UTF-8"
ARG EXTENSIONS=""
# hadolint ignore=DL3008 # whoever names an extension names its version
RUN apt-get update \
    && apt-get install --yes --no-install-recommends locales=2.36-* $EXTENSIONS \
    && for locale in $LOCALES; do localedef --inputfile="${locale%%.*}" --charmap=UTF-8 "$locale"; done \
    && rm -rf /var/lib/apt/lists/*

# The numbers that the official Helm chart and its volumes expect of the user; a group of its own, since 0 is root's.
# The directories are made here, because a new named volume takes owner and mode of what it covers.
RUN groupadd --gid 50000 airflow \
    && useradd --uid 50000 --gid 50000 --create-home --shell /usr/sbin/nologin airflow \
    && install --directory --owner=airflow --group=airflow --mode=0755 /opt/airflow/logs \
    && install --directory --owner=airflow --group=airflow --mode=0700 /var/wal-archive /var/lib/pv-backup/staging /restored

ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    PATH=/opt/venv/bin:/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin \
    PV_BACKUP_PG_BIN_DIR=/usr/lib/postgresql/15/bin \
    PV_BACKUP_STAGING_DIRECTORY=/var/lib/pv-backup/staging \
    PV_BACKUP_WAL_DIRECTORY=/var/wal-archive \
    PYTHONPATH=/opt/airflow/plugins \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

COPY --from=packages /opt/venv /opt/venv
# Without one Airflow would write its own, into a directory that is read-only here.
COPY deploy/airflow.cfg /opt/airflow/airflow.cfg
COPY deploy/pg_receivewal.sh /opt/airflow/deploy/pg_receivewal.sh
COPY deploy/pg_receivewal_check.sh /opt/airflow/deploy/pg_receivewal_check.sh
COPY include /opt/airflow/include
COPY plugins /opt/airflow/plugins
COPY dags /opt/airflow/dags
# By hand, since nothing may write bytecode later, and each task would compile anew.
RUN python -m compileall -q /opt/airflow/plugins /opt/airflow/dags

USER 50000:50000
WORKDIR /opt/airflow
# Reaps what orphaned children leave, and hands SIGTERM on, so that each component ends in order.
ENTRYPOINT ["tini", "--"]
CMD ["airflow", "version"]
# Each component is asked for its own work, by docker-compose.yaml and by the chart.
HEALTHCHECK NONE


# For docker-compose.yaml alone: what makes roles, keys, policies and the bucket on the servers that stand beside it.
FROM airflow AS provision
# Root makes what the user may write: the place of OpenBao's root token.
USER 0
RUN install --directory --owner=airflow --group=airflow --mode=0700 /var/lib/pv-backup/vault-admin
USER 50000:50000
COPY terraform/policies /opt/airflow/terraform/policies
COPY dev /opt/airflow/dev
COPY deploy/compose /opt/airflow/deploy/compose
ENV PYTHONPATH=/opt/airflow:/opt/airflow/plugins
ENTRYPOINT ["tini", "--", "python", "-m", "deploy.compose.provision"]
CMD ["--help"]
