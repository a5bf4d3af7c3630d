from anyrec.cli import inference_main

inference_main()
