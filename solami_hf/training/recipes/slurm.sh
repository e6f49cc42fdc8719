#!/bin/bash
# Stage 2 as in the paper's sizes (32 GPUs: 4 nodes of 8) under SLURM; hours and memory are for your cluster to set:
#   MODEL=... DATA=... OUTPUT=/shared/... sbatch slurm.sh        STAGE=sft RECIPE=sft_paper.yaml for stage 3
# Killed or requeued, it goes on from its last checkpoint, because OUTPUT stays the same. RECIPES is the folder of this
# file, as sbatch runs a copy of it elsewhere.
#SBATCH --job-name=solami
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=48:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail
: "${MODEL:?folder or hub id of the model}" "${DATA:?token dataset}" "${OUTPUT:?folder that all nodes see}"
RECIPES=${RECIPES:-$(python -c 'import solami_hf; print(solami_hf.__path__[0])')/training/recipes}
STAGE=${STAGE:-pretrain}
RECIPE=${RECIPE:-pretrain_paper.yaml}
DEEPSPEED=${DEEPSPEED:-zero3.json}
export RECIPES STAGE RECIPE DEEPSPEED MODEL DATA OUTPUT
HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))
GPUS=${SLURM_GPUS_ON_NODE:-8}
export HOST PORT GPUS
srun --kill-on-bad-exit=1 bash -c '
    accelerate launch --config_file "$RECIPES/accelerate_several_nodes.yaml" \
        --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * GPUS))" --machine_rank "$SLURM_NODEID" \
        --main_process_ip "$HOST" --main_process_port "$PORT" \
        -m "solami_hf.training.$STAGE" --config "$RECIPES/$RECIPE" --deepspeed "$RECIPES/$DEEPSPEED" \
        --model "$MODEL" --data "$DATA" --output_dir "$OUTPUT"'
