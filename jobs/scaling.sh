#!/bin/bash
# Submits a strong or weak scaling study over numbers of nodes, as one chain of jobs: each starts when the previous one has
# ended, successfully or not, and the last writes the report. Run it where you would call sbatch:
#
#   jobs/scaling.sh configs/scaling_strong.yaml 1 2 4 8
#   jobs/scaling.sh configs/scaling_weak.yaml 1 2 4 8 --ntasks-per-node=64 --partition=NAME --time=00:30:00
#
# Arguments after the numbers of nodes go to sbatch. All measurements are appended to one file, here scaling_strong.jsonl.
# Call the script again after a failure, or with more numbers: existing measurements are not repeated.
# Edit: the resources and the software in scaling.sbatch.
set -eo pipefail

study=${1:-}
[[ -f $study ]] || { echo "$0: there is no file '$study'; name a study, such as configs/scaling_strong.yaml" >&2; exit 2; }
shift
nodes=()
while [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; do
    nodes+=("$1")
    shift
done
((${#nodes[@]})) || { echo "$0: name numbers of nodes after $study, such as 1 2 4 8" >&2; exit 2; }

job=$(dirname "$0")/scaling.sbatch
file=$(basename "$study" .yaml).jsonl
after=()
for number in "${nodes[@]}"; do
    id=$(sbatch --parsable "$@" --nodes="$number" "${after[@]}" "$job" scale "$study" --output "$file")
    echo "job ${id%%;*}: nodes $number"
    after=(--dependency="afterany:${id%%;*}")
done
id=$(sbatch --parsable "$@" --nodes=1 --ntasks-per-node=1 "${after[@]}" "$job" report "$file")
echo "job ${id%%;*}: report of $file"
