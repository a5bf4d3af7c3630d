from anyrec.cli import train_main

train_main()
