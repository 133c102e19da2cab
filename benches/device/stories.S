/* What stories.c has in flash. */
    .section .rodata
    .globl weights, tokenizer_file, tokenizer_end, story, story_end
    .balign 16
weights:
    .incbin "weights.bin"
tokenizer_file:
    .incbin "tok512.bin"
tokenizer_end:
story:
    .incbin "stories260K.txt"
story_end:
#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
