/* What the program wants of the board that it runs on. semihosting.c and start.c give it under an emulator or a
 * debugger, hosted.c under an operating system, and flash.c simulates flash memory; firmware of your own has a serial
 * port and flash instead. */
#ifndef BOARD_H
#define BOARD_H

#include <jostle.h>

/* Prints text, zero-terminated. */
void board_print(const char *text);

/* Ends the program; 0 is success. */
_Noreturn void board_exit(int status);

/* Writes a file on the machine that runs the emulator; returns how many bytes it took. */
size_t board_write_file(const char *name, const void *bytes, size_t size);

/* Reads at most `size` bytes of a file; returns how many there were, 0 where there is no such file. */
size_t board_read_file(const char *name, void *bytes, size_t size);

/* The most bytes of stack that were in use so far; 0 where that can't be told. */
size_t board_stack_peak(void);

/* Two slots of flash memory: between begin and end they hold what earlier runs have left. */
extern const jostle_flash board_flash;
void board_flash_begin(void);
void board_flash_end(void);

/* Where a slot is mapped. */
const uint8_t *board_flash_slot(size_t slot);

/* Words and sectors of flash memory that this run has changed. */
uint32_t board_flash_changes(void);

#endif
