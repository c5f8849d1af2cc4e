#!/usr/bin/env bash
# Starts MONAI Label with the app of this repository; the process becomes the server.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

expected="expected a folder of images or a http(s):// address"

usage() {
    cat <<'EOF'
Usage: scripts/start.sh STUDIES [OPTION]...

STUDIES is a folder of images (.nii.gz, .nii or .nrrd) or the address of a DICOMweb server.

  --labels A,B        structures to segment, in order: index 1, 2, ... (default: lesion)
  --port NUMBER       port to listen on (default: 8000)
  --host ADDRESS      address to listen on (default: 127.0.0.1, this machine only)
  --tls-cert FILE     certificate, by which the server is reached over HTTPS
  --tls-key FILE      its key
  --conf NAME VALUE   a setting of the app; may be given several times
                      users /absolute/file: who must log in; scripts/users.sh writes it
                      allow_network_without_login true: --host may be another than this machine
                      project_dir /absolute/folder: for annotations, models and logs; STUDIES may be read-only then
  -h, --help          this text

MONAI_LABEL_AUTH_ENABLE=true and MONAI_LABEL_AUTH_REALM_URI in the environment let users log in by OpenID Connect.
With a login, --host may be another than this machine where there is a certificate.

Of a DICOMweb server all MR and CT series are served; --conf modalities MR,CT,PT serves PET as well. A filter of other
DICOMweb attributes, MONAI_LABEL_DICOMWEB_SEARCH_FILTER='{"PatientID": "7"}' in front of the command, takes the place
of that setting. The login of a DICOMweb server is taken
from MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD in the environment.
EOF
}

refuse() {
    printf 'scripts/start.sh: %s\n' "$*" >&2
    exit 2
}

need_values() { # option, how many it takes, how many follow
    (($3 >= $2)) || refuse "$1 needs $2 value(s) after it, but $3 follow(s); see scripts/start.sh --help."
}

check_port() {
    if ! [[ $1 =~ ^[1-9][0-9]{0,4}$ ]] || (($1 > 65535)); then
        refuse "The port is '$1'; expected a whole number from 1 to 65535, such as --port 8000."
    fi
}

answers() { # host, port
    # shellcheck disable=SC2016
    timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
}

check_free() { # host, port
    local address=$1
    [[ $address != 0.0.0.0 && $address != :: ]] || address=127.0.0.1
    ! answers "$address" "$2" ||
        refuse "Port $2 is in use on $address; stop what listens there, or choose another with --port."
}

check_host() {
    case $host in
        127.* | localhost | ::1) return ;;
    esac
    if [[ -n $users || ${MONAI_LABEL_AUTH_ENABLE:-} =~ $yes ]]; then
        [[ -n $tls_cert || -n $trusted_proxies ]] ||
            refuse "The server would listen on $host without encryption, and passwords could be read on the network." \
                "Give a certificate with --tls-cert and --tls-key, or use --host 127.0.0.1 behind a proxy of this" \
                "machine, or name proxies elsewhere with --conf trusted_proxies ADDRESS."
        return 0
    fi
    [[ $network_allowed =~ $yes ]] ||
        refuse "The server would listen on $host without a login: everybody who reaches this machine could read and" \
            "change the studies. Start it with --host 127.0.0.1, or with a login (--conf users FILE), or, where only" \
            "people who may do so reach it, with --conf allow_network_without_login true."
    echo "Warning: everybody who reaches this machine on $host can read and change the studies without a login." >&2
}

check_certificate() {
    local file
    [[ -n $tls_cert || -n $tls_key ]] || return 0
    [[ -n $tls_cert && -n $tls_key ]] || refuse "HTTPS needs both --tls-cert and --tls-key; give the other one too."
    for file in "$tls_cert" "$tls_key"; do
        [[ -f $file && -r $file ]] || refuse "The file '$file' for HTTPS cannot be read; correct its name, or allow it."
    done
    tls=(--ssl_certfile "$(realpath -- "$tls_cert")" --ssl_keyfile "$(realpath -- "$tls_key")")
    scheme=https
}

check_server() {
    local host port shown=${1/\/\/*@/\/\/}
    [[ $1 =~ ^(https?)://([^/]*@)?(\[([^]]+)\]|([^/:@]+))(:([0-9]+))?(/|$) ]] ||
        refuse "The address '$shown' cannot be read; expected one such as http://localhost:8042/dicom-web."
    host=${BASH_REMATCH[4]:-${BASH_REMATCH[5]}}
    port=${BASH_REMATCH[7]}
    [[ -n $port ]] || { [[ ${BASH_REMATCH[1]} == http ]] && port=80 || port=443; }
    case $host in
        127.* | localhost | ::1) ;;
        # A proxy may reach what this machine cannot.
        *) [[ -z ${http_proxy:-}${https_proxy:-}${HTTP_PROXY:-}${HTTPS_PROXY:-} ]] || return 0 ;;
    esac
    answers "$host" "$port" ||
        refuse "Nothing answers on port $port of $host; start the DICOMweb server there, or correct '$shown'."
}

check_folder() {
    [[ -e $1 ]] || refuse "The studies folder '$1' does not exist; $expected."
    [[ -d $1 ]] || refuse "The studies '$1' are a file; $expected."
    [[ -r $1 && -x $1 ]] || refuse "The studies folder '$1' cannot be read; allow it."
    [[ -w $1 || -n $project_dir ]] ||
        refuse "The studies folder '$1' cannot be written, and annotations are kept in it; allow it, or name another" \
            "folder for them with --conf project_dir /absolute/folder."
    [[ -n $(find -L "$1" -maxdepth 1 -type f \( -name '*.nii.gz' -o -name '*.nii' -o -name '*.nrrd' \) -print -quit) ]] ||
        refuse "The studies folder '$1' holds no .nii.gz, .nii or .nrrd image, and subfolders are not searched;" \
            "convert DICOM files to NIfTI, or give the address of a DICOMweb server that has them."
}

studies="" host=127.0.0.1 port=8000 network_allowed=false project_dir=""
users="" trusted_proxies="" tls_cert="" tls_key="" scheme=http
conf=() tls=()
yes='^([Tt][Rr][Uu][Ee]|[Tt]|[Yy][Ee][Ss]|[Yy]|[Oo][Nn]|1)$'
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --labels) need_values "$1" 1 $(($# - 1)) && conf+=(--conf labels "$2") && shift 2 ;;
        --port) need_values "$1" 1 $(($# - 1)) && port=$2 && shift 2 ;;
        --host) need_values "$1" 1 $(($# - 1)) && host=$2 && shift 2 ;;
        --tls-cert) need_values "$1" 1 $(($# - 1)) && tls_cert=$2 && shift 2 ;;
        --tls-key) need_values "$1" 1 $(($# - 1)) && tls_key=$2 && shift 2 ;;
        --conf)
            need_values "$1" 2 $(($# - 1)) && conf+=(--conf "$2" "$3")
            [[ $2 != allow_network_without_login ]] || network_allowed=$3
            [[ $2 != project_dir ]] || project_dir=$3
            [[ $2 != users ]] || users=$3
            [[ $2 != trusted_proxies ]] || trusted_proxies=$3
            shift 3
            ;;
        -*) refuse "There is no option '$1'; see scripts/start.sh --help." ;;
        *)
            [[ -z $studies ]] || refuse "The studies are given twice, '$studies' and '$1'; give one."
            [[ -n $1 ]] || refuse "The studies are an empty name; $expected."
            studies=$1 && shift
            ;;
    esac
done
[[ -n $studies ]] || refuse "No studies are given; $expected, see scripts/start.sh --help."

check_port "$port"
check_certificate
check_host
case $studies in
    http://* | https://*)
        check_server "$studies"
        ;;
    *)
        check_folder "$studies"
        studies=$(cd -- "$studies" && pwd)
        ;;
esac
check_free "$host" "$port"

# shellcheck source=scripts/environment.sh
source "$scripts/environment.sh"

echo "MONAI Label starts on $scheme://$host:$port (OHIF, for DICOMweb studies: /ohif/); stop it with Ctrl-C."
cd "$scripts/.."
exec python -m lib.server.launch start_server --app apps/inextremis --studies "$studies" \
    --host "$host" --port "$port" "${tls[@]}" "${conf[@]}"
