# A stand-in for postgrest/postgrest, of which no registry in reach has anything: that of the tests (tests/standins), served
# at / and told by the variables of the real one.
ARG BASE
FROM ${BASE}
COPY constraints.txt /
RUN python -m pip install --no-cache-dir --quiet --disable-pip-version-check --root-user-action=ignore \
    --constraint /constraints.txt "psycopg[binary]" "python-jose[cryptography]" starlette uvicorn
COPY standins /app/standins
COPY postgrest.py ports.py /app/
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
USER 1000
EXPOSE 3000
CMD ["python", "/app/postgrest.py"]
