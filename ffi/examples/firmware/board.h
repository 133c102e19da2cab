/* The functions that the program needs from its board. Under an emulator or a debugger they are in semihosting.c and
 * start.c, under an operating system in hosted.c. flash.c simulates flash memory. Your own firmware has a serial port
 * and real flash instead. */
#ifndef BOARD_H
#define BOARD_H

#include <jostle.h>

/* Prints text, zero-terminated. */
void board_print(const char *text);

/* Ends the program. 0 means success. */
_Noreturn void board_exit(int status);

/* Writes a file on the machine that runs the emulator. Returns the number of bytes written. */
size_t board_write_file(const char *name, const void *bytes, size_t size);

/* Reads at most `size` bytes of a file. Returns the number of bytes, 0 if the file does not exist. */
size_t board_read_file(const char *name, void *bytes, size_t size);

/* The peak of the stack in bytes so far; 0 if it cannot be measured. */
size_t board_stack_peak(void);

/* Two slots of flash memory. Between begin and end they have the contents that earlier runs left. */
extern const jostle_flash board_flash;
void board_flash_begin(void);
void board_flash_end(void);

/* The address of a slot. */
const uint8_t *board_flash_slot(size_t slot);

/* The number of words and sectors of flash memory that this run has changed. */
uint32_t board_flash_changes(void);

#endif
