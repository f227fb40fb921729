# A stand-in for nginx:1.28, where no registry of images is in reach: Debian's nginx, laid out as the official image has it.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends nginx-light curl >/dev/null \
    && rm -rf /var/lib/apt/lists/* /etc/nginx/sites-* \
    && ln -sf /dev/stdout /var/log/nginx/access.log \
    && ln -sf /dev/stderr /var/log/nginx/error.log
STOPSIGNAL SIGTERM
CMD ["nginx", "-g", "daemon off;"]
