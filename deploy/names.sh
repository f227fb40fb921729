# shellcheck shell=bash
# What things are called in the project: sourced by the other scripts. Names that are here are nowhere else.

# shellcheck disable=SC2034
SERVICES=(logging user usage storage video) # who is called, before who calls
# shellcheck disable=SC2034
SWEEPERS=(video storage usage)
REPOSITORY=short-video
# shellcheck disable=SC2034
TAG=${COMMIT_SHA:-${BUILD_ID:-}} # of a build by hand that names no commit: its own id

account() { # NAME: the service account of a service, of the build or of the scheduler
    echo "short-video-$1@$PROJECT_ID.iam.gserviceaccount.com"
}

image() { # NAME
    echo "$REGION-docker.pkg.dev/$PROJECT_ID/$REPOSITORY/$1-service"
}

url() { # NAME [TAG]: known before there is a service, as it is made of the project's number
    echo "https://${2:+$2---}$1-service-$PROJECT_NUMBER.$REGION.run.app"
}

stop() {
    echo "${0##*/}: $*" >&2
    exit 1
}
