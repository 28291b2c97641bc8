"""The mathematics: noise schedules, the U-Net, guidance, the conditional model. Imports torch only."""
