# What the pages' examples name: judge:0 is the small world's seed; judge:1 and judge:2 come from a job
# that is much too small to teach anything, and whose gate lets nothing through: `latest` is judge:0.
head -n 300 seeds/smallworld/data/instructions.jsonl > library.jsonl
head -n 20 seeds/smallworld/data/dev.jsonl > library-labelled.jsonl
id() { python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'; }
upload() { curl -sSf "$GATEWAY/v1/datasets?$1" -H 'Content-Type: application/x-ndjson' --data-binary "@$2" | id; }
DATASET=$(upload name=library library.jsonl)
LABELLED=$(upload 'name=library-labelled&kind=labelled' library-labelled.jsonl)
JOB=$(curl -sSf "$GATEWAY/v1/jobs" -H 'Content-Type: application/json' -d '{
  "dataset": "'"$DATASET"'", "labelled_dataset": "'"$LABELLED"'", "recipe": "quickstart", "model": "judge",
  "overrides": {"iterations": 2, "pair": {"instructions": 32}, "judge": {"samples": 3},
    "train": {"steps": 8, "tokens_per_step": 500, "warmup_steps": 1, "checkpoints": 1},
    "validate": {"instructions": 32}, "gate": {"margin": 1}}}' | id)
until curl -sSf "$GATEWAY/v1/jobs/$JOB" | grep -qE '"state": ?"(succeeded|failed|cancelled)"'; do
  sleep 0.5
done
curl -sSf "$GATEWAY/v1/jobs/$JOB" | grep -qE '"state": ?"succeeded"'
